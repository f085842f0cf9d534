"""Planned memory is what trainings take: every tensor of real updates, followed from its birth to its end."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
from torch import nn

from onex_distill.distill.planner import Need, stage_one_need, stage_two_need
from onex_distill.distill.planner.counting import LiveBytes
from onex_distill.distill.stage_one.roles import FullCopies
from onex_distill.distill.stage_one.trainer import StageOneJob, StageOneTrainer
from onex_distill.distill.stage_two.job import AdversarialJob
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run
from support import trainer_of
from training_fixtures import Inputs

TOKENS, UPDATES = 12, 4
CHECKPOINTED = {"gradient_checkpointing": True}
SHARED = CHECKPOINTED | {"parametrization": "shared_backbone"}
HALF = {"mixed_precision": "bf16"}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("stage_one", {}),
    "full, checkpointed": ("stage_one", CHECKPOINTED),
    "full, checkpointed, bf16": ("stage_one", CHECKPOINTED | HALF),
    "shared backbone": ("stage_one", SHARED),
    "shared backbone in parts": ("stage_one", SHARED | {"micro_batch_size": 2}),
    "stage two": ("stage_two", {}),
    "stage two, checkpointed": ("stage_two", CHECKPOINTED),
    "stage two in parts, bf16": (
        "stage_two",
        CHECKPOINTED | HALF | {"decoder_precision": "bf16", "micro_batch_size": 4},
    ),
    "co-training": ("cotraining", CHECKPOINTED | {"compensation_warmup": 0, "output_weight": 0.0}),
}


class Measured(NamedTuple):
    """What a training updates, and the networks whose weights it may have mapped from files."""

    update: Callable[[int], object]
    networks: Iterable[nn.Module | None]


def most_bytes(build: Callable[[], Measured]) -> int:
    """The most bytes of tensors in some updates, with weights that were read and never copied."""
    with LiveBytes([]) as live:
        update, networks = build()
        tensors = [
            t for network in networks if network is not None for t in (*network.parameters(), *network.buffers())
        ]
        mapped = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
        for step in range(UPDATES):
            update(step)
        return live.most + sum(size for key, size in mapped.items() if key not in live.sizes)


def measured_stage_one(job: StageOneJob, ranks: Ranks) -> Measured:
    trainer = StageOneTrainer(job, Run(job.folder, {}, ranks))
    networks = trainer.networks
    if isinstance(networks, FullCopies):
        own = [*networks.trained.values(), networks.teacher, networks.average]
    else:
        own = [networks.model, networks.average]
    return Measured(trainer.update, [*own, trainer.grid.autoencoder])


def measured_stage_two(job: AdversarialJob, ranks: Ranks) -> Measured:
    trainer = trainer_of(job, ranks)
    judges = trainer.judges
    own = [trainer.adapted, trainer.autoencoder, judges.backbone, judges.discriminator]
    return Measured(trainer.update, [*own, getattr(trainer, "compensation", None)])


def need_of(job: StageOneJob | AdversarialJob, inputs: Inputs) -> Need:
    if isinstance(job, StageOneJob):
        return stage_one_need(inputs.teacher, TOKENS, job.params, job.compute)
    return stage_two_need(inputs.teacher, inputs.recogniser, TOKENS, job.params, job.compute)


def titles() -> list[Any]:
    """Every setting; those whose parts others combine are slow."""
    slow = ("full, checkpointed", "shared backbone in parts", "stage two, checkpointed")
    return [pytest.param(title, marks=pytest.mark.slow if title in slow else ()) for title in SETTINGS]


@pytest.mark.parametrize("title", titles())
def test_a_plan_is_within_15_percent_of_what_is_measured(jobs, inputs, tmp_path, title):
    name, changes = SETTINGS[title]
    job = jobs(name, tmp_path, batch_size=8, **changes)
    if name == "stage_one":
        job = job.model_copy(update={"validation": None})
    measure = measured_stage_one if name == "stage_one" else measured_stage_two
    most = most_bytes(lambda: measure(job, Ranks(job.compute)))
    assert need_of(job, inputs).memory == pytest.approx(most, rel=0.15)
