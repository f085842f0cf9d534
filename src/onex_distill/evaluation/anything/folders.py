"""A folder of images with captions, as people have them."""

import logging
from pathlib import Path

import pandas as pd
from PIL import Image, UnidentifiedImageError

from onex_distill.evaluation.anything.params import folder_name
from onex_distill.storage.image_table import ImageTable, ImageWriter

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
TABLES = ("metadata.jsonl", "metadata.csv")
MODES = ("RGB", "L")


def read_folder(folder: Path, skip_unreadable: bool) -> tuple[list[Path], pd.DataFrame]:
    """Images of a folder and their index: ``text``, ``prompt_row`` (equal captions are one prompt), ``method``.

    Captions are in ``metadata.jsonl`` or ``metadata.csv`` (``file_name``, ``text``), or in a .txt beside every image.
    Raises ValueError with one line for a folder without images or captions, for images without captions and the
    reverse, for files that cannot be read (unless they are left out), and for several sizes or colour modes.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; correct score.images")
    images = {path.name: path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES}
    if not images:
        raise ValueError(f"{folder} holds no image ({', '.join(SUFFIXES)}); correct score.images")
    captions = _captions(folder, images)
    _pair(folder, images, captions)
    readable = _readable(folder, images, skip_unreadable)
    texts = [captions[path.name] for path in readable]
    prompts = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    names = [path.name for path in readable]
    index = pd.DataFrame({"prompt_row": [prompts[text] for text in texts], "text": texts, "file_name": names})
    # images of one prompt stand together, as metrics of whole prompts need them
    order = index.sort_values("prompt_row", kind="stable").index
    return [readable[place] for place in order], index.loc[order].reset_index(drop=True).assign(
        method=folder_name(folder)
    )


def store_folder(folder: Path, skip_unreadable: bool, rows_per_shard: int, target: Path) -> ImageTable:
    """The folder's images as a table, a shard in memory at a time.

    Args:
        folder: The folder of images.
        skip_unreadable: Leave out images that cannot be read.
        rows_per_shard: Images in memory at once, which share a file.
        target: The folder of the table.

    Returns:
        The images, and an index of the folder.

    Raises:
        ValueError: An image cannot be read and is not to be skipped.
    """
    paths, index = read_folder(folder, skip_unreadable)
    writer = ImageWriter(target, len(paths), rows_per_shard)
    for number in range(writer.shards):
        rows = writer.rows_of(number)
        pictures = [Image.open(paths[row]).convert("RGB") for row in rows]
        writer.write_pictures(number, pictures, {})
    return writer.finish(index)


def _captions(folder: Path, images: dict[str, Path]) -> dict[str, str]:
    """Caption by file name."""
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None:
        written = {path.stem: path for path in sorted(folder.glob("*.txt"))}
        stems = {path.stem for path in images.values()}
        beside = {name: written[path.stem] for name, path in images.items() if path.stem in written}
        alone = {path.name: path for stem, path in written.items() if stem not in stems}
        return {name: path.read_text(encoding="utf-8").strip() for name, path in {**beside, **alone}.items()}
    try:
        frame = pd.read_json(table, lines=True) if table.suffix == ".jsonl" else pd.read_csv(table)
    except ValueError as error:
        raise ValueError(f"{table} cannot be read ({next(iter(str(error).splitlines()))}); correct it") from error
    missing = [name for name in ("file_name", "text") if name not in frame]
    if missing:
        raise ValueError(f"{table} has no column {missing[0]!r}; found {', '.join(map(str, frame.columns))}")
    return {str(name): str(text) for name, text in zip(frame["file_name"], frame["text"], strict=True)}


def _pair(folder: Path, images: dict[str, Path], captions: dict[str, str]) -> None:
    for what, lacking in (
        ("images without a caption", sorted(images.keys() - captions.keys())),
        ("captions without an image", sorted(captions.keys() - images.keys())),
    ):
        if lacking:
            raise ValueError(
                f"{folder} holds {len(lacking)} {what}, the first is {lacking[0]}; captions are read from "
                f"{', '.join(TABLES)} (file_name, text) or a .txt beside every image"
            )


def _readable(folder: Path, images: dict[str, Path], skip_unreadable: bool) -> list[Path]:
    """Images that open whole, all of one size and mode."""
    broken: list[str] = []
    kept: list[Path] = []
    kinds: dict[tuple[tuple[int, int], str], Path] = {}
    for path in images.values():
        try:
            with Image.open(path) as image:
                image.load()
                kinds.setdefault((image.size, image.mode), path)
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
            broken.append(path.name)
        else:
            kept.append(path)
    if broken and not skip_unreadable:
        raise ValueError(
            f"{len(broken)} of {len(images)} images of {folder} cannot be read: {', '.join(broken[:5])}; mend them, or "
            "leave them out with score.skip_unreadable=true"
        )
    if broken:
        logger.warning("%d images of %s are left out: %s.", len(broken), folder, ", ".join(broken[:5]))
    if not kept:
        raise ValueError(f"no image of {folder} can be read; correct score.images")
    if len(kinds) > 1:
        (first, one), (second, two) = list(kinds.items())[:2]
        raise ValueError(
            f"images of {folder} differ: {one.name} is {first[0][0]} x {first[0][1]} {first[1]}, {two.name} "
            f"{second[0][0]} x {second[0][1]} {second[1]}; bring them to one size and mode"
        )
    mode = next(iter(kinds))[1]
    if mode not in MODES:
        raise ValueError(f"images of {folder} are {mode}; save them as RGB, so that nobody has to guess a background")
    return kept
