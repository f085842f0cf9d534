"""Every training gives two ranks the gradients of one float32 process, however it is sharded and in bf16 too."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from gradients_driver import Updates, first_updates, main
from onex_distill.distill.stage_one.latent_gan import LatentGanParams
from onex_distill.distill.stage_one.params import RegressionParams
from onex_distill.distill.stage_one.watching import WatchParams
from onex_distill.engine.job import write_job
from onex_distill.engine.ranks import Ranks
from support import in_processes, write_trajectories

STAGE_ONE = {
    "num_inference_steps": (4,),  # a rollout without gradient before the forward with it
    "watch": WatchParams(every=100, prompts=1, images=2),
    "validation": None,
}
GAN = {"latent_gan": LatentGanParams(student_weight=0.1, fake_score_weight=0.2, hidden=4)}
REGRESSION = {"regression": RegressionParams(weight=2.0, trajectories=6, seed=1)}
CACHED = {"compensation_warmup": 0, "output_weight": 0.0, "batch_size": 16}
CHECKPOINTED = {"gradient_checkpointing": True}
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("stage_one", STAGE_ONE),
    "full, checkpointed": ("stage_one", STAGE_ONE | CHECKPOINTED),
    "shared backbone": ("stage_one", STAGE_ONE | {"parametrization": "shared_backbone"}),
    "shared backbone, checkpointed": ("stage_one", STAGE_ONE | {"parametrization": "shared_backbone"} | CHECKPOINTED),
    "latent GAN": ("stage_one", STAGE_ONE | GAN),
    "latent GAN, checkpointed": ("stage_one", STAGE_ONE | GAN | CHECKPOINTED),
    "regression": ("stage_one", STAGE_ONE | REGRESSION),
    "shared backbone, regression": (
        "stage_one",
        STAGE_ONE | {"parametrization": "shared_backbone"} | CHECKPOINTED | REGRESSION,
    ),
    "stage two": ("stage_two", {}),
    "co-training": ("cotraining", CACHED),
    "co-training, fitting": ("cotraining", CACHED | {"fitting_steps": 1, "fitting_batch_size": 4}),
    "co-training in parts, checkpointed": ("cotraining", CACHED | CHECKPOINTED | {"micro_batch_size": 2}),
    "dial": ("dial", CACHED | {"adversarial_loss": "label_smoothed", "feature_weight": 0.0}),
    "reader": ("reader", {}),
    "autoencoder": ("autoencoder", {}),
    "text encoders": ("text_encoders", {}),
    "transformer": ("transformer", {}),
}
SHARDINGS = ("ddp", "fsdp2")
PRECISIONS = ("fp32", "bf16")
EVERY_WAY = ("shared backbone, checkpointed", "co-training")  # without the slow ones too
SLOW = {  # what one of the others stands for
    "full",
    "shared backbone",
    "latent GAN, checkpointed",
    "shared backbone, regression",
    "co-training in parts, checkpointed",
}
TOLERANCE = {"fp32": 1e-4, "bf16": 0.02}  # of norms
ROUNDED = 0.04  # in bf16 for the few weights of a compensation 16 wide, with ddp too
DISTANCE = {"fp32": 3e-5, "bf16": 0.05}  # of all gradients of an update, relative to their norm
SUBTRACTED = 0.12  # in bf16 for stage one, which descends the difference of two scores that are nearly the same


def cases() -> Iterator[Any]:
    """Every training in every sharding and precision; without the slow ones, most in the hardest alone."""
    for title, sharding, precision in product(TRAININGS, SHARDINGS, PRECISIONS):
        is_hardest = (sharding, precision) == ("fsdp2", "bf16")
        is_quick = (is_hardest and title not in SLOW) or title in EVERY_WAY
        yield pytest.param(title, sharding, precision, marks=() if is_quick else pytest.mark.slow)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("gradients")


def tables(changes: dict[str, Any], inputs: Any, folder: Path) -> dict[str, Any]:
    """What a training reads for its further terms."""
    real = {"real_latents": inputs.validation} if "latent_gan" in changes else {}
    steps = STAGE_ONE["num_inference_steps"][0]
    return real | ({"trajectories": write_trajectories(folder, inputs, steps)} if "regression" in changes else {})


@pytest.fixture
def gradients(request, jobs, folder, inputs) -> Path:
    """Every training in one process in float32, and in two as the chosen tests want it, in one launch."""
    if any(folder.iterdir()):
        return folder
    chosen = [item.callspec.params for item in request.session.items if "gradients" in item.fixturenames]
    wanted = {(case["title"], case["sharding"], case["precision"]) for case in chosen}
    paths = []
    for title, (name, changes) in TRAININGS.items():
        if all(title != other for other, _, _ in wanted):
            continue
        settings = {"batch_size": 4, "steps": 2, **changes}
        settings |= tables(changes, inputs, folder / "trajectories")
        alone = jobs(name, folder / title, **settings)
        alone.folder.mkdir()
        torch.save(first_updates(alone, Ranks(alone.compute)), alone.folder / "gradients.pt")
        for sharding, precision in product(SHARDINGS, PRECISIONS):
            if (title, sharding, precision) in wanted:
                where = folder / f"{title}-{sharding}-{precision}"
                where.mkdir()
                compute = {"processes": 2, "sharding": sharding, "mixed_precision": precision}
                job = jobs(name, where, **compute, **settings)
                write_job(job, {}, where / "job.json")
                paths.append(where / "job.json")
    in_processes(2, main, paths, folder / "logs")
    return folder


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("machines")


@pytest.fixture
def copies(jobs, machines) -> Path:
    """Some trainings alone in float32, and in bf16 on two machines of two ranks, split within and copied over them."""
    if any(machines.iterdir()):
        return machines
    paths = []
    for title in ("full, checkpointed", "shared backbone", "stage two"):
        name, changes = TRAININGS[title]
        settings = {"batch_size": 4, "steps": 2, **changes}
        alone = jobs(name, machines / title, **settings)
        alone.folder.mkdir()
        torch.save(first_updates(alone, Ranks(alone.compute)), alone.folder / "gradients.pt")
        compute = {"processes": 2, "machines": 2, "sharding": "hsdp", "mixed_precision": "bf16"}
        job = jobs(name, machines / f"{title}-hsdp", **compute, **settings)
        job.folder.mkdir()
        write_job(job, {}, job.folder / "job.json")
        paths.append(job.folder / "job.json")
    in_processes(4, main, paths, machines / "logs")
    return machines


@pytest.mark.parametrize(("title", "sharding", "precision"), list(cases()))
def test_two_ranks_have_the_gradients_of_one_process(gradients, title, sharding, precision):
    is_rounded = precision == "bf16" and "batch_size" in TRAININGS[title][1]
    tolerance = ROUNDED if is_rounded else TOLERANCE[precision]
    distance = SUBTRACTED if precision == "bf16" and TRAININGS[title][0] == "stage_one" else DISTANCE[precision]
    alone = torch.load(gradients / title / "gradients.pt", weights_only=True)
    for rank in range(2):
        path = gradients / f"{title}-{sharding}-{precision}" / f"gradients-{rank}.pt"
        assert_same(torch.load(path, weights_only=True), alone, tolerance, distance)


def assert_same(found: list[Updates], expected: list[Updates], tolerance: float, distance: float) -> None:
    """Every update of every optimizer: the same parameters, the norm within ``tolerance``, and gradient by gradient."""
    assert expected
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a["names"] == b["names"]
            assert a["norm"] == pytest.approx(b["norm"], rel=tolerance, abs=1e-7)
            assert float((a["vector"] - b["vector"]).norm()) <= distance * b["norm"] + 1e-7


MICRO_BATCHED = [
    "full",
    "regression",
    "shared backbone, checkpointed",
    "latent GAN",
    "reader",
    "autoencoder",
    "text encoders",
]


@pytest.mark.parametrize("title", [*MICRO_BATCHED, "transformer"])
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_micro_batches_have_the_gradients_of_the_batch(jobs, tmp_path, inputs, title, size):
    name, changes = TRAININGS[title]
    settings = {"batch_size": 4, "steps": 2, **changes}
    settings |= tables(changes, inputs, tmp_path / "trajectories")
    whole, parts = (
        first_updates(jobs(name, tmp_path / str(micro), micro_batch_size=micro, **settings), ranks)
        for micro in (None, size)
        for ranks in [Ranks(jobs(name, tmp_path).compute)]
    )
    for expected, found in zip(whole, parts, strict=True):
        for a, b in zip(expected, found, strict=True):
            assert a["names"] == b["names"]
            assert b["norm"] == pytest.approx(a["norm"], rel=2e-6)
            assert float((a["vector"] - b["vector"]).norm() / a["vector"].norm()) < 1e-5  # float32, four steps deep


@pytest.mark.slow
@pytest.mark.parametrize("title", ["full, checkpointed", "shared backbone", "stage two"])
def test_ranks_of_two_machines_have_the_gradients_of_one_process(copies, title):
    alone = torch.load(copies / title / "gradients.pt", weights_only=True)
    for rank in range(4):
        found = torch.load(copies / f"{title}-hsdp" / f"gradients-{rank}.pt", weights_only=True)
        assert_same(found, alone, TOLERANCE["bf16"], SUBTRACTED)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("title", ["full", "shared backbone, checkpointed", "stage two"])
def test_two_devices_in_bf16_have_the_gradients_of_one_process(jobs, tmp_path, title):
    name, changes = TRAININGS[title]
    settings = {"batch_size": 4, "steps": 2, **changes}
    alone = first_updates(jobs(name, tmp_path / "alone", **settings), Ranks(jobs(name, tmp_path).compute))
    compute = {"processes": 2, "sharding": "fsdp2", "mixed_precision": "bf16", "device": "auto"}
    job = jobs(name, tmp_path / "two", **compute, **settings)
    job.folder.mkdir()
    write_job(job, {}, job.folder / "job.json")
    in_processes(2, main, [job.folder / "job.json"], tmp_path / "logs")
    found = torch.load(job.folder / "gradients-0.pt", weights_only=True)
    assert_same(found, alone, ROUNDED, SUBTRACTED)
