"""Files and folders that are complete or not there."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MADE = (  # names of files in run folders: checkpoints, tables, models, tokenizers, bookkeeping
    *(f"{stem}-*.safetensors" for stem in ("rank", "part", "step")),
    *(f"{stem}*.safetensors" for stem in ("diffusion_pytorch_model", "model", "adapter_model")),
    *(f"{stem}*.safetensors.index.json" for stem in ("diffusion_pytorch_model", "model")),
    *(
        f"{stem}.json"
        for stem in ("state", "table", "config", "checksums", "identity", "job", "model_index", "handles")
    ),
    *(f"{stem}.json" for stem in ("scheduler_config", "generation_config", "adapter_config", "vocab")),
    *(f"{stem}.json" for stem in ("tokenizer", "tokenizer_config", "special_tokens_map", "added_tokens", "networks")),
    *("images-*.tar", "merges.txt", "spiece.model", "chat_template.jinja"),
    *(f"{stem}.parquet" for stem in ("index", "losses", "plan", "prompts", "captions")),
    *("[0-9]*-[0-9][0-9].png", "metadata.jsonl"),
    *("rank-*.sha256", "rank-*.lock", "rank-*.owner", "rank-*.error", "launcher.lock", "launcher.owner", "stop"),
    *("events.out.tfevents.*", "stdout.log", "stderr.log", "error.json", ".partial-*"),
)


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A temporary path to write to; renamed to ``path`` after the block, when its bytes are on the disk."""
    partial = path.with_name(f".partial-{path.name}")
    yield partial
    sync(partial)
    partial.rename(path)


def write_text(path: Path, text: str) -> None:
    """Write a small file, all of it or nothing."""
    with complete(path) as partial:
        partial.write_text(text, encoding="utf-8")


def replace_folder(partial: Path, final: Path) -> None:
    """Give a written folder its name, when its bytes are on the disk; one that has it is removed."""
    sync_tree(partial)
    if final.exists():
        remove_folder(final)
    partial.rename(final)
    sync(final.parent)


def remove_folder(folder: Path) -> None:
    """Remove what a run made of a folder, renamed first, so that half of it is never taken for the whole."""
    trash = folder.with_name(f".removed-{folder.name}")
    remove_made(trash)
    while trash.exists():  # holds what no run made
        trash = trash.with_name(f"{trash.name}-")
    folder.rename(trash)
    remove_made(trash)


def remove_made(folder: Path) -> list[Path]:
    """Remove the files that runs make from a folder, then every folder left empty; return the files that stay.

    A link to a folder is such a file: it is not followed.
    """
    if not folder.is_dir() or folder.is_symlink():
        return [folder] if folder.exists() else []
    kept = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            kept += remove_made(path)
        elif any(path.match(pattern) for pattern in MADE) and not path.is_symlink():
            path.unlink(missing_ok=True)
        else:
            kept.append(path)
    if not kept:
        folder.rmdir()
    return kept


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Wait until a file, or a folder and all that is in it, is on the disk."""
    for part in (*path.rglob("*"), path):
        sync(part)


def absent(path: Path) -> str:
    """The path, and why what is expected there is not: a link into nothing, something of another kind, or nothing."""
    if path.is_dir():
        return f"{path} is a folder, where a file is expected"
    if path.exists():
        return f"{path} is no folder, where a folder is expected"
    if path.is_symlink():
        return f"{path} is a link to {path.readlink()}, which does not exist"
    return f"{path} does not exist"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
