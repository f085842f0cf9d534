"""What kedro viz shows of an artefact: pictures with captions, rounded tables, and a card of a model and its run.

Shapes: N pictures, C channels, H W size.
"""

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from kedro_datasets._typing import HTMLPreview, ImagePreview, TablePreview
from PIL import Image

from onex_distill.storage.records import FILE, RECORDS, RunRecord

if TYPE_CHECKING:
    from torch import Tensor

# torch is imported where it is used, so that a catalog can be listed and drawn without it

PER_ROW = 4
DIGITS = 4  # significant
MIB = 2**20
SHOWN = ("num_layers", "num_attention_heads", "sample_size", "in_channels", "latent_channels", "kind", "candidates")


def as_png(image: Image.Image) -> ImagePreview:
    """A picture as base64-encoded PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return ImagePreview(base64.b64encode(buffer.getvalue()).decode())


def captioned(pictures: Sequence[Image.Image], captions: Sequence[str]) -> ImagePreview:
    """Pictures in rows of four, each with its caption below."""
    from onex_distill.metrics.labelled import labelled_grid

    pairs = list(zip(pictures, captions, strict=True))
    rows = [pairs[start : start + PER_ROW] for start in range(0, len(pairs), PER_ROW)]
    below = [[caption for _, caption in row] for row in rows]
    grid = [("", [picture for picture, _ in row]) for row in rows]
    return as_png(labelled_grid(grid, [""] * min(PER_ROW, len(pairs)), below))


def pictures_of(tensor: "Tensor") -> list[Image.Image]:
    """Images (N, 3, H, W) in [0, 1] as they are; latents (N, C, H, W) in the colours of their three main components."""
    import torch
    from torchvision.transforms.functional import to_pil_image

    values = tensor.float()
    if values.shape[1] != 3:  # of an autoencoder, and shown without it
        count, channels, height, width = values.shape
        flat = values.permute(0, 2, 3, 1).reshape(-1, channels)
        flat = flat - flat.mean(0)
        components = torch.linalg.eigh(flat.T @ flat)[1][:, -3:]
        values = (flat @ components).reshape(count, height, width, 3).permute(0, 3, 1, 2)
        low, high = (values.flatten().quantile(share) for share in (0.01, 0.99))
        values = (values - low) / (high - low).clamp_min(1e-6)
    return [to_pil_image(value) for value in values.clamp(0, 1)]


def rows_of_captions(index: pd.DataFrame, count: int) -> list[int]:
    """The first rows of different captions, at most ``count``."""
    index = index.reset_index(drop=True)
    different = index.drop_duplicates("text") if "text" in index else index
    return [int(row) for row in different.index[:count]]


def captions_of(index: pd.DataFrame) -> list[str]:
    """What is written below the rows of a table: the caption, or what else tells them apart."""
    if "text" in index:
        return [str(text) for text in index["text"]]
    known = [name for name in ("step", "prompt_id", "prompt_row") if name in index]
    return [
        ", ".join(f"{str(name).removeprefix('prompt_')} {value}" for name, value in row.items())
        for row in index[known].to_dict("records")
    ]


def rounded(frame: pd.DataFrame) -> TablePreview:
    """A table with numbers of four significant digits; what is missing is empty."""

    def cell(value: Any) -> Any:
        if isinstance(value, float):
            return "" if math.isnan(value) else float(f"{value:.{DIGITS}g}")
        return value

    return TablePreview(frame.astype(object).map(cell).to_dict(orient="split"))


def card(class_name: str, folder: Path) -> HTMLPreview:
    """Class, size, configuration and run of a folder of models, as a table."""
    rows = {"class": class_name, **weights_of(folder), **settings_of(folder), **run_of(folder)}
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return _literal(f"<table>{cells}</table>")


def weights_of(folder: Path) -> dict[str, str]:
    """Numbers in all safetensors files of a folder, from their headers, and what they take on the disk."""
    from onex_distill.storage.weights import read_header

    files = sorted(folder.rglob("*.safetensors"))
    tensors = [tensor for file in files for tensor in read_header(file).values()]
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    count = sum(math.prod(tensor.shape) for tensor in tensors)
    dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in tensors}))
    return {"parameters": f"{count:,} ({dtypes})", "size": f"{size / MIB:.1f} MiB"}


def settings_of(folder: Path) -> dict[str, Any]:
    """The entries of its configuration that tell models apart."""
    found: dict[str, Any] = {}
    for name in ("config.json", "model_index.json"):
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        found |= {key: content[key] for key in SHOWN if content.get(key) is not None}
        if name == "model_index.json" and content:
            found["components"] = ", ".join(
                key for key, value in content.items() if isinstance(value, list) and all(value)
            )
    return found


def run_of(folder: Path) -> dict[str, str]:
    """Which run wrote a version, and from what; empty where no record says."""
    version = folder.parent.name
    path = next(
        (p / RECORDS / version / FILE for p in folder.parents if (p / RECORDS / version / FILE).is_file()), None
    )
    if path is None:
        return {}
    record = RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
    made = {"version": version, "run": f"{', '.join(record.pipelines)} ({record.env})", "commit": record.commit}
    made |= {"started": record.started, "machine": record.machine.get("system", ""), "status": record.status}
    made |= {"packages": ", ".join(f"{name} {each}" for name, each in record.packages.items() if each)}
    name = folder.name
    for node, written in record.nodes.items():
        if any(each.replace(".", "_") == name for each in written.outputs):
            made |= {"node": f"{node}, {written.seconds:.0f} s", "made from": _inputs(written.inputs)}
    return made


def runs_table(data: Path) -> TablePreview:
    """What made the versions below a data folder, a row per run, the newest first."""
    from onex_distill.storage.records import read_records

    rows = [
        {
            "version": record.version,
            "pipelines": ", ".join(record.pipelines),
            "env": record.env,
            "commit": record.commit,
            "seconds": record.seconds,
            "status": record.status,
        }
        for record in reversed(read_records(data).values())
    ]
    return rounded(pd.DataFrame(rows))


def body_of(document: str) -> HTMLPreview:
    """The visible part of an HTML page, without its styles, in one block; other text as it is."""
    body = re.search(r"<body[^>]*>(.*)</body>", document, re.DOTALL)
    if body is None:
        return HTMLPreview(document)
    bare = re.sub(r"<(style|script)\b.*?</\1>", "", body[1], flags=re.DOTALL)
    return _literal(" ".join(line.strip() for line in bare.splitlines() if line.strip()))


def _literal(html: str) -> HTMLPreview:
    """HTML whose text has no underscores: kedro viz reads it as Markdown too, and would make italics of them."""
    return HTMLPreview(html.replace("_", "\u02cd"))


def _inputs(inputs: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" if version else name for name, version in inputs.items() if name != RECORDS)
