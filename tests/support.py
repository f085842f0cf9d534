"""What several tests share and is no fixture."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import DiffusionPipeline
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from onex_distill.distill.cotraining.job import CotrainingJob
from onex_distill.distill.cotraining.trainer import CotrainingTrainer
from onex_distill.distill.stage_one.regression import TRAJECTORY
from onex_distill.distill.stage_two.job import AdversarialJob
from onex_distill.distill.stage_two.trainer import AdversarialTrainer
from onex_distill.engine.ranks import Ranks
from onex_distill.models.noise import latent_shape
from onex_distill.storage.tensor_table import TableFolder, TensorTable

PROJECT = Path(__file__).parents[1]
IMPORTED_ONCE = [
    "onex_distill.distill.cotraining.job",
    "onex_distill.distill.stage_one.trainer",
    "onex_distill.evaluation.jobs",
    "onex_distill.pretraining.training",
]


def newest(data: Path, path: str) -> Path:
    """The newest version of a dataset below a data folder."""
    folder = data / path
    return max(folder.iterdir()) / folder.name


def write_trajectories(folder: Path, inputs: Any, steps: int) -> TableFolder:
    """Random trajectories of ``steps`` steps on the training captions of some inputs."""
    embeddings = inputs.embeddings.open()
    rows = embeddings.rows_where("split", "train")[:6]
    draws = torch.Generator().manual_seed(9)
    shape = (len(rows), steps + 1, *latent_shape(inputs.teacher.transformer.build()))
    index = pd.DataFrame({"prompt_row": rows, "noise_seed": range(len(rows))})
    return TensorTable.write(folder, index, {TRAJECTORY: torch.randn(shape, generator=draws)}).handle


DAMAGE = st.one_of(
    st.floats(0, 1, exclude_max=True).map(lambda share: ("cut", share)),
    st.lists(
        st.tuples(st.one_of(st.integers(0, 600), st.integers(0, 2**24)), st.integers(0, 7)), min_size=1, max_size=3
    ).map(lambda flips: ("flip", flips)),
)


def damage(path: Path, how: Any) -> bool:
    """Cut a file short, or flip single bits, the first few hundred bytes as often as all others; whether it changed."""
    content = path.read_bytes()
    kind, what = how
    changed = bytearray(content)
    if kind == "cut":
        del changed[int(what * len(content)) :]
    else:
        for place, bit in what:
            changed[place % len(content)] ^= 1 << bit
    path.write_bytes(changed)
    return bytes(changed) != content


def in_aligned_memory(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """The pipeline with copies of its weights: MKL may round by where a mapped file has put them."""
    for module in pipeline.components.values():
        for parameter in module.parameters() if isinstance(module, nn.Module) else ():
            parameter.data = parameter.data.clone()
    return pipeline


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A module's weights as they are now."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """The weights that are no longer what ``snapshot`` saw."""
    return {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}


def grad_modes(transformer: nn.Module) -> list[bool]:
    """Whether gradients are on, an entry for every forward from now on."""
    modes: list[bool] = []
    transformer.register_forward_pre_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    return modes


def trainer_of(job: AdversarialJob, ranks: Ranks) -> AdversarialTrainer:
    """What the job trains with."""
    return CotrainingTrainer(job, ranks) if isinstance(job, CotrainingJob) else AdversarialTrainer(job, ranks)


def in_processes(count: int, main: Callable[[list[Path]], None], paths: list[Path], log_dir: Path) -> None:
    """Run a driver's function in so many ranks on this machine, forked from a process that has imported everything."""
    multiprocessing.set_forkserver_preload(IMPORTED_ONCE)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id="test",
        max_restarts=0,
        start_method="forkserver",
        logs_specs=DefaultLogsSpecs(log_dir=str(log_dir), redirects=Std.ALL),
    )
    elastic_launch(config, _on_one_thread)(main, paths)


def _on_one_thread(main: Callable[[list[Path]], None], paths: list[Path]) -> None:
    torch.set_num_threads(1)  # as the elastic agent gives a rank that it does not fork
    main(paths)
