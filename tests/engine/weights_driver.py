"""One rank that loads and places a transformer, and reports how much memory of its own that took, in MiB."""

import json
import sys
from pathlib import Path

import torch

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.weights import gather, load_transformer, place, save_transformer
from onex_distill.storage.model_folder import ModelFolder


def private_mib() -> float:
    """Anonymous memory: pages of the file count as private too, while the other rank happens not to map them."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    return int(values["Anonymous"]) / 1024


folder = ModelFolder(path=Path(sys.argv[1]), class_name="diffusers.SD3Transformer2DModel")
ranks = Ranks(ComputeParams(**json.loads(sys.argv[2])))
before = private_mib()
transformer = load_transformer(folder)
loaded = private_mib()
place(transformer, ranks)
placed = private_mib()
report = {"loaded": loaded - before, "placed": placed - before}
Path(sys.argv[3], f"memory-{ranks.index}.json").write_text(json.dumps(report))
state = gather(transformer.state_dict(), ranks)
if ranks.is_first:
    save_transformer(state, folder, Path(sys.argv[3], "copy"))
torch.distributed.destroy_process_group()
