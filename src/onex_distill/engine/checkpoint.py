"""Checkpoints of a training run: written to a temporary name, synced, renamed, verified on load.

One checkpoint is a folder ``step-00000200``: ``rank-00000.safetensors`` and its checksum for every rank that took part
(each rank writes an equal number of whole tensors, so that any number of ranks can read them) and ``state.json`` with
everything else. No pickle is involved.
"""

import errno
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from onex_distill.engine.ranks import Ranks, whole
from onex_distill.engine.run import Identity, Run
from onex_distill.storage.files import remove_folder, remove_made, replace_folder, sha256_of, sync, write_text

logger = logging.getLogger(__name__)

KEPT = 2
MOST_CHANGES_NAMED = 4


class Stateful(Protocol):
    """What modules, optimizers and learning-rate schedulers have in common."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that has to be restored."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restore what ``state_dict`` returned."""


def save_checkpoint(run: Run, step: int, states: Mapping[str, Stateful], history: list[dict[str, float]]) -> None:
    """Write one checkpoint and drop all but the newest two. Every rank calls this.

    Args:
        run: Where, and which ranks.
        step: Finished steps.
        states: What has to go on, by name.
        history: The losses of the finished steps.

    Raises:
        OSError: It cannot be written; the checkpoint before is untouched.
    """
    final, partial = run.folder / f"step-{step:08d}", run.folder / f".partial-step-{step:08d}"
    if run.ranks.is_first:
        remove_made(partial)
        partial.mkdir(parents=True, exist_ok=True)
    run.ranks.wait()
    tensors = _Collected(run.ranks)
    tree = {name: tensors.flatten(state.state_dict(), name) for name, state in states.items()}
    meta = {"step": step, "ranks": run.ranks.count, "identity": run.identity, "history": history, "tree": tree}
    try:
        _write_tensors(partial / f"rank-{run.ranks.index:05d}", tensors.mine)
        run.ranks.wait()
        if run.ranks.is_first:
            write_text(partial / "state.json", json.dumps(meta))
            replace_folder(partial, final)
            for old in sorted(run.folder.glob("step-*"))[:-KEPT]:
                remove_folder(old)
    except (OSError, SafetensorError) as error:
        remove_made(partial)
        raise OSError(
            getattr(error, "errno", None) or errno.EIO,
            f"the checkpoint of step {step} could not be written to {run.folder} ({error}); the one before is intact: "
            "free space there and run again",
        ) from error


def load_latest(run: Run, states: Mapping[str, Stateful]) -> tuple[int, list[dict[str, float]]]:
    """Restore the newest undamaged checkpoint; return the number of finished steps and the loss history.

    A damaged checkpoint is skipped with a warning. Raises ValueError when the run directory belongs to other
    parameters or inputs, and names what changed.
    """
    for folder in sorted(run.folder.glob("step-*"), reverse=True):
        damage = _damage(folder) if run.ranks.is_first else None
        if run.ranks.total({"damaged": float(damage is not None)})["damaged"]:
            if damage:
                logger.warning("Checkpoint %s is damaged (%s); falling back to the one before.", folder, damage)
            continue
        meta = json.loads((folder / "state.json").read_text())
        require_same(run.folder, meta["identity"], run.identity)
        if meta["ranks"] != run.ranks.count and run.ranks.is_first:
            logger.warning("%s began on %d ranks and goes on with %d.", run.folder, meta["ranks"], run.ranks.count)
        tensors: dict[str, Tensor] = {}
        for path in sorted(folder.glob("rank-*.safetensors")):
            tensors |= load_file(path)
        for name, state in states.items():
            state.load_state_dict(_restore(meta["tree"][name], tensors, state.state_dict()))
        return int(meta["step"]), meta["history"]
    return 0, []


def require_same(folder: Path, before: Identity, now: Identity) -> None:
    """Raise ValueError that names what changed since the run in ``folder`` began."""
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if not names:
        return
    changes = [_change(name, before.get(name), now.get(name)) for name in names[:MOST_CHANGES_NAMED]]
    more = f" and {len(names) - len(changes)} more" if len(names) > len(changes) else ""
    raise ValueError(
        f"{folder} holds an unfinished run with other settings: {', '.join(changes)}{more}; restore them to resume it, "
        "or delete that folder to start afresh"
    )


def _change(name: str, before: object, now: object) -> str:
    if name.startswith("input."):
        return f"{name} has other contents"
    return f"{name} was {before} and is {now}"


class _Collected:
    """The tensors of a state tree, dealt out so that every rank writes its share of them."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.count = 0
        self.mine: dict[str, Tensor] = {}

    def flatten(self, value: Any, path: str) -> Any:
        """Replace tensors by references; mappings become pairs, so that integer keys survive JSON."""
        if isinstance(value, Tensor):
            full = whole(value.detach())
            if self.count % self.ranks.count == self.ranks.index:
                self.mine[path] = full.cpu().contiguous().clone()
            self.count += 1
            return {"tensor": path}
        if isinstance(value, Mapping):
            return {"pairs": [[key, self.flatten(item, f"{path}/{key}")] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {"items": [self.flatten(item, f"{path}/{i}") for i, item in enumerate(value)]}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"a checkpoint cannot hold {path}: {type(value).__name__}")


def _restore(value: Any, tensors: Mapping[str, Tensor], current: Any) -> Any:
    """The tree with its tensors, sharded where ``current``, the state that they replace, is."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return sharded_like(tensors[value["tensor"]], current)
    if "items" in value:
        return [_restore(item, tensors, None) for item in value["items"]]
    known = current if isinstance(current, Mapping) else {}
    return {key: _restore(item, tensors, known.get(key)) for key, item in value["pairs"]}


def sharded_like(tensor: Tensor, current: object) -> Tensor:
    """A whole tensor, split over the ranks if ``current`` is; no communication."""
    if not isinstance(current, DTensor):
        return tensor
    return distribute_tensor(tensor, current.device_mesh, current.placements, src_data_rank=None)


def _damage(folder: Path) -> str | None:
    """Why a checkpoint cannot be used; None if it can."""
    try:
        ranks = json.loads((folder / "state.json").read_text())["ranks"]
        for rank in range(ranks):
            stem = folder / f"rank-{rank:05d}"
            if sha256_of(stem.with_suffix(".safetensors")) != stem.with_suffix(".sha256").read_text():
                return f"{stem.name} has another checksum"
    except (OSError, ValueError, KeyError) as error:
        return str(error)
    return None


def _write_tensors(stem: Path, tensors: dict[str, Tensor]) -> None:
    path = stem.with_suffix(".safetensors")
    save_file(tensors, path)
    sync(path)
    write_text(stem.with_suffix(".sha256"), sha256_of(path))
