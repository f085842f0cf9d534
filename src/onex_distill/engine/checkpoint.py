"""Checkpoints of a training run: written to a temporary name, synced, renamed, verified on load.

One checkpoint is a folder ``step-00000200`` with ``tensors.safetensors`` (every tensor of every state) and
``state.json`` (everything else, and the SHA-256 of the tensor file). No pickle is involved.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

KEPT = 2


class Stateful(Protocol):
    """What modules, optimizers and learning-rate schedulers have in common."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that has to be restored."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restore what ``state_dict`` returned."""


def save_checkpoint(
    run_dir: Path, step: int, states: Mapping[str, Stateful], history: list[dict[str, float]], fingerprint: str
) -> None:
    """Write one checkpoint after ``step`` finished steps and drop all but the newest two."""
    tensors: dict[str, Tensor] = {}
    tree = {name: _flatten(state.state_dict(), name, tensors) for name, state in states.items()}
    final = run_dir / f"step-{step:08d}"
    partial = run_dir / f".partial-{step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(tensors, partial / "tensors.safetensors")
    meta = {"step": step, "fingerprint": fingerprint, "history": history, "tree": tree}
    meta["sha256"] = _sha256(partial / "tensors.safetensors")
    (partial / "state.json").write_text(json.dumps(meta))
    for path in (partial / "tensors.safetensors", partial / "state.json", partial):
        _sync(path)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync(run_dir)
    for old in sorted(run_dir.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def load_latest(run_dir: Path, states: Mapping[str, Stateful], fingerprint: str) -> tuple[int, list[dict[str, float]]]:
    """Restore the newest undamaged checkpoint; return the number of finished steps and the loss history.

    A damaged checkpoint is skipped with a warning. Raises ValueError when the run directory belongs to other
    parameters or inputs.
    """
    for folder in sorted(run_dir.glob("step-*"), reverse=True):
        try:
            meta = json.loads((folder / "state.json").read_text())
            if _sha256(folder / "tensors.safetensors") != meta["sha256"]:
                raise ValueError("checksum mismatch")
        except (OSError, ValueError, KeyError) as error:
            logger.warning("Checkpoint %s is damaged (%s); falling back to the one before.", folder, error)
            continue
        if meta["fingerprint"] != fingerprint:
            raise ValueError(
                f"{run_dir} holds an unfinished run with other parameters or inputs; restore them to resume it, "
                "or delete that folder to start afresh"
            )
        tensors = load_file(folder / "tensors.safetensors")
        for name, state in states.items():
            state.load_state_dict(_restore(meta["tree"][name], tensors))
        return int(meta["step"]), meta["history"]
    return 0, []


def fingerprint_of(*parts: Any) -> str:
    """A hash of parameters and input hashes, by which a run recognises its own checkpoints."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Replace tensors by references into ``tensors``; mappings become pairs, so that integer keys survive JSON."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {"pairs": [[key, _flatten(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"items": [_flatten(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold {path}: {type(value).__name__}")


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "items" in value:
        return [_restore(item, tensors) for item in value["items"]]
    return {key: _restore(item, tensors) for key, item in value["pairs"]}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def index_fingerprint(index: pd.DataFrame, columns: list[str]) -> str:
    """SHA-256 over some columns of a table's index, to record which prompts and seeds a run reads."""
    return hashlib.sha256(pd.util.hash_pandas_object(index[columns]).to_numpy().tobytes()).hexdigest()


def module_fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 over the names and bytes of a module's state, to record which weights a run started from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
