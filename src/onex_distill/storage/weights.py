"""Safetensors weights as they lie in a folder: which files they are, and what their headers say.

Nothing here reads a weight. The header of a safetensors file is eight bytes of length and that much JSON: for every
tensor its dtype, shape and place.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from onex_distill.storage.files import absent

STEMS = ("diffusion_pytorch_model", "model")  # diffusers' and transformers' names
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
LFS = b"version https://git-lfs"
LONGEST_HEADER = 100 * 2**20  # bytes; safetensors' own limit
FLOATS = ("F64", "F32", "F16", "BF16")


class Weights(NamedTuple):
    """The files of one model; ``variant`` is that of their names, for example fp16, or none."""

    files: tuple[Path, ...]
    variant: str | None


class TensorHeader(NamedTuple):
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


def find_weights(folder: Path) -> Weights:
    """The safetensors files from which diffusers or transformers would load a folder's model.

    Files without a variant come first, then those of the only variant that is there. Raises ValueError with one line
    when there are none, when a shard is missing, or when the weights are in a format that is not read.
    """
    for variant in (None, *_variants(folder)):
        for stem in STEMS:
            index = folder / _named(stem, variant, ".safetensors.index", ".json")
            single = folder / (f"{stem}.safetensors" if variant is None else f"{stem}.{variant}.safetensors")
            if index.is_file():
                return Weights(_shards(index), variant)
            if single.is_file():
                return Weights((single,), variant)
    raise ValueError(_why_none(folder))


def read_headers(weights: Weights) -> dict[str, TensorHeader]:
    """Every tensor of a model by name. Raises ValueError with one line for a damaged file."""
    return {name: header for path in weights.files for name, header in read_header(path).items()}


def read_header(path: Path) -> dict[str, TensorHeader]:
    """The tensors of one file by name.

    Raises ValueError with one line for a Git-LFS pointer, a file that was cut short, and one that is no safetensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(max(8, len(LFS)))
        if start.startswith(LFS):
            raise ValueError(f"{path} is a Git-LFS pointer, not the weights; run `git lfs pull` where it came from")
        length = int.from_bytes(start[:8], "little")
        if size < 8 or not 0 < length <= min(LONGEST_HEADER, size):
            raise ValueError(f"{path} is no safetensors file, or damaged; copy it again")
        file.seek(8)
        text = file.read(length)
    try:
        content: dict[str, Any] = json.loads(text)
        content.pop("__metadata__", None)
        tensors = {name: TensorHeader(str(one["dtype"]), tuple(one["shape"])) for name, one in content.items()}
        end = max((one["data_offsets"][1] for one in content.values()), default=0)
        cut = 8 + length + end != size
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"{path} is no safetensors file, or damaged; copy it again") from error
    if cut:
        raise ValueError(f"{path} has {size} bytes and should have {8 + length + end}; copy it again")
    return tensors


def _variants(folder: Path) -> list[str]:
    """The variant in the names of the files. Raises ValueError when there are several."""
    found = set()
    for stem in STEMS:
        singles = (path.name.removeprefix(f"{stem}.") for path in folder.glob(f"{stem}.*.safetensors"))
        found |= {name.removesuffix(".safetensors").partition("-")[0] for name in singles}
        indices = (
            path.name.removeprefix(f"{stem}.safetensors.index.") for path in folder.glob(f"{stem}.*.index.*.json")
        )
        found |= {name.removesuffix(".json") for name in indices}
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds its weights in the variants {', '.join(sorted(found))} and none without; keep one of them"
        )
    return sorted(found)


def _named(stem: str, variant: str | None, middle: str, end: str) -> str:
    return f"{stem}{middle}{end}" if variant is None else f"{stem}{middle}.{variant}{end}"


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names, each there and holding the tensors that the index says it does."""
    try:
        placed: dict[str, str] = dict(json.loads(index.read_text())["weight_map"])
        names = sorted(set(placed.values()))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{index} is damaged; copy the whole folder again") from error
    for name in names:
        path = index.parent / name
        if Path(name).name != name or not path.is_file():
            raise ValueError(f"{index.parent} lacks the shard {name} that {index.name} names; copy the whole folder")
        missing = {key for key, place in placed.items() if place == name} - set(read_header(path))
        if missing:
            raise ValueError(f"the shard {path} lacks {min(missing)}, which {index.name} places there; copy it again")
    return tuple(index.parent / name for name in names)


def _why_none(folder: Path) -> str:
    """One line for a folder without weights that can be read."""
    if not folder.is_dir():
        return f"{absent(folder)}; copy the whole folder"
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not path.exists():
            return f"{absent(path)}; copy the whole folder again"
    for path in _files(folder, PICKLES):
        return (
            f"{folder} holds its weights as {path.name}, a pickle, which can run code and is not read; save the model "
            "as safetensors once: from_pretrained(...).save_pretrained(FOLDER, safe_serialization=True)"
        )
    for path in _files(folder, (".safetensors",)):
        if any("lora" in name for name in read_header(path)):
            return f"{path} holds LoRA weights alone; fuse them into the whole model and save that"
    return f"{folder} holds no weights ({' or '.join(f'{stem}.safetensors' for stem in STEMS)}); copy the whole folder"


def _files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.suffix in suffixes and path.is_file())
