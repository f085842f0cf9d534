"""Readers of the caption files that people have: a row per caption, with the place in the file where it stands.

Nothing is judged here but the format; what a caption must be is ``storage.prompt_table``'s to say.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

COLUMNS = ("text", "caption", "prompt", "Prompt", "captions")  # looked for in this order where none is named
UTF16 = (b"\xff\xfe", b"\xfe\xff")
SHOWN = 5  # bad rows named in one message


class Row(NamedTuple):
    """What one place of a file holds: an object by column, or a text."""

    place: str
    content: dict[str, Any]


def read_rows(path: Path, column: str | None) -> Iterator[Row]:
    """The rows of a file; of parquet, only the columns that are needed for ``column``.

    Raises ValueError or a library's error for a file that is not of its suffix's format.
    """
    match path.suffix:
        case ".txt":
            return _lines_of_text(path)
        case ".csv":
            return _csv(path)
        case ".tsv":
            return _tsv(path)
        case ".jsonl":
            return _json_lines(path)
        case ".json":
            return _json(path)
        case ".parquet":
            return _parquet(path, column)
    raise ValueError(f"captions are read from {', '.join(FORMATS)}")


FORMATS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet")


def value_of(content: dict[str, Any], column: str) -> Any:
    """A column of a row; ``a.b`` is the field b of the object a, unless a column has that very name."""
    if column in content:
        return content[column]
    value: Any = content
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def bad_rows(rows: list[tuple[str, str]]) -> str:
    """The first few of (place, what is wrong there), and how many more there are."""
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return ", ".join(f"{place} {wrong}" for place, wrong in rows[:SHOWN]) + more


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(UTF16):
        raise ValueError("it is UTF-16 text; save it as UTF-8")
    return content.decode("utf-8-sig")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines; they end at a line feed, with or without a carriage return, and at nothing else."""
    return ((number, line.removesuffix("\r")) for number, line in enumerate(_text(path).split("\n"), 1))


def _lines_of_text(path: Path) -> Iterator[Row]:
    return (Row(f"line {number}", {"text": line}) for number, line in _lines(path) if line.strip())


def _csv(path: Path) -> Iterator[Row]:
    reader = csv.reader(f"{line}\n" for _, line in _lines(path))
    header = next(reader, [])
    _check_header(header)
    long: list[tuple[str, str]] = []
    end = reader.line_num
    for fields in reader:
        place, end = f"line {end + 1}", reader.line_num
        if len(fields) > len(header):
            long.append((place, "has more fields than the header"))
        elif fields:
            yield Row(place, dict(zip(header, fields, strict=False)))
    if long:
        raise ValueError(f"{bad_rows(long)}; put captions with commas in double quotes")


def _tsv(path: Path) -> Iterator[Row]:
    """Every line is a row; a quote that is not closed is part of the text."""
    lines = _lines(path)
    header = _fields(next(lines, (1, ""))[1], 0)
    _check_header(header)
    for number, line in lines:
        if line.strip():
            yield Row(f"line {number}", dict(zip(header, _fields(line, len(header)), strict=False)))


def _fields(line: str, expected: int) -> list[str]:
    fields = next(csv.reader([line], delimiter="\t"), [])
    return fields if len(fields) >= expected else line.split("\t")


def _check_header(header: list[str]) -> None:
    if not any(header):
        raise ValueError("it is empty; add a column 'text' with captions")
    for name in header:
        if name and header.count(name) > 1:
            raise ValueError(f"its header names the column {name!r} more than once")


def _json_lines(path: Path) -> Iterator[Row]:
    wrong = []
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            content = _row_content(json.loads(line))
        except (ValueError, RecursionError):
            content = None
        if content is None:
            wrong.append((f"line {number}", "is no JSON object or text"))
        else:
            yield Row(f"line {number}", content)
    if wrong:
        raise ValueError(bad_rows(wrong))


def _json(path: Path) -> Iterator[Row]:
    """A list of texts or objects, or COCO's captions: every annotation with its image."""
    content = json.loads(_text(path))
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _coco(content["annotations"])
    if not isinstance(content, list):
        raise ValueError("it holds neither a list of captions nor COCO's annotations")
    return _list(content)


def _list(content: list[Any]) -> Iterator[Row]:
    rows = [(f"entry {number}", _row_content(item)) for number, item in enumerate(content, 1)]
    wrong = [(place, "is no JSON object or text") for place, row in rows if row is None]
    if wrong:
        raise ValueError(bad_rows(wrong))
    return (Row(place, row) for place, row in rows if row is not None)


def _coco(annotations: list[Any]) -> Iterator[Row]:
    """A row per image in the order of their first captions: ``text`` lists its captions, ``ids`` their own names."""
    images: dict[Any, list[dict[str, Any]]] = {}
    wrong = []
    for number, annotation in enumerate(annotations, 1):
        if not isinstance(annotation, dict) or not {"image_id", "id", "caption"} <= annotation.keys():
            wrong.append((f"annotation {number}", "lacks image_id, id or caption"))
        else:
            images.setdefault(str(annotation["image_id"]), []).append(annotation)
    if wrong:
        raise ValueError(bad_rows(wrong))
    for image, own in images.items():
        names = [f"coco-{image}-{annotation['id']}" for annotation in own]
        yield Row(f"image {image}", {"text": [annotation["caption"] for annotation in own], "ids": names})


def _row_content(item: Any) -> dict[str, Any] | None:
    if isinstance(item, str):
        return {"text": item}
    return item if isinstance(item, dict) else None


def _parquet(path: Path, column: str | None) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        wanted = {"id", "split", *(COLUMNS if column is None else (column, column.partition(".")[0]))}
        number = 0
        for batch in file.iter_batches(columns=[name for name in names if name in wanted] or names[:1]):
            batch.validate(full=True)  # or bytes that are no UTF-8 would pass
            for content in batch.to_pylist():
                number += 1
                yield Row(f"row {number}", content)
