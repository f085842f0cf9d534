"""The further choices of stage one over two processes: every rank calls every network equally often."""

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

from onex_distill.distill.stage_one.latent_gan import LatentGanParams
from onex_distill.distill.stage_one.watching import WatchParams
from onex_distill.engine.job import write_job
from onex_distill.engine.launch import launch
from ranks_driver import main
from support import in_processes

SHARED = {"parametrization": "shared_backbone", "gradient_checkpointing": True}
PUBLISHED = {"ema_decay": 0.0, "gradient_checkpointing": True}
CHOICES = {"num_inference_steps": (1, 2, 4), "fake_updates": 2, "matched": "x0", "sigma_range": "full"}
GAN = {"latent_gan": LatentGanParams(student_weight=0.1, fake_score_weight=0.2, hidden=4)}
OFTEN = {"watch": WatchParams(every=1, prompts=2, images=2), "checkpoint_every": 4}  # no checkpoint in between
SHARDINGS = ["ddp", "fsdp2"]
WAYS = {"shared": SHARED, "choices": CHOICES | OFTEN | GAN, "published": PUBLISHED}
QUICK = [("shared", "fsdp2"), ("choices", "ddp"), ("choices", "fsdp2"), ("half", "fsdp2")]


def cases(names: Iterable[str]) -> list[Any]:
    """Every way in every sharding; those that the gradients of tests/engine/test_gradients.py stand for are slow."""
    pairs = product(names, SHARDINGS)
    return [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in pairs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("stage one")


@pytest.fixture
def results(request, jobs, inputs, optimizer, folder) -> Path:
    """Every way that the chosen tests want, alone and in two processes, and a backbone in half precision."""
    if any(folder.iterdir()):
        return folder
    slower = optimizer.model_copy(update={"lr": 2e-4, "eps": 1e-6})
    settings = {"half": {**SHARED, "mixed_precision": "bf16"}}
    for name, changes in WAYS.items():
        settings[name] = {**changes, "student": slower, "fake_score": slower, "real_latents": inputs.validation}
    asking = [item.callspec.params for item in request.session.items if item.path == request.path]
    for name in {case["name"] for case in asking} - {"half"}:
        launch(jobs("stage_one", folder / name, **settings[name]))
    paths = []
    for name, sharding in sorted((case["name"], case["sharding"]) for case in asking):
        where = folder / f"{name}-{sharding}"
        job = jobs("stage_one", where, processes=2, sharding=sharding, **settings[name])
        job.folder.mkdir()
        write_job(job, job.identity(), job.folder / "job.json")
        paths.append(job.folder / "job.json")
    in_processes(2, main, paths, folder / "logs")
    return folder


@pytest.mark.parametrize(("name", "sharding"), cases(["half"]))
def test_a_backbone_in_half_precision_trains_over_two_processes(results, name, sharding):
    losses = pd.read_parquet(results / f"{name}-{sharding}/result/losses.parquet")
    assert losses.drop(columns=["grid_diversity", "validation_distance"]).notna().all().all()


@pytest.mark.parametrize(("name", "sharding"), cases(WAYS))
def test_two_processes_do_what_one_does(results, name, sharding):
    alone, together = results / name / "result", results / f"{name}-{sharding}/result"
    for student in ("student", "best"):
        expected, found = (
            load_file(folder / student / "diffusion_pytorch_model.safetensors") for folder in (alone, together)
        )
        assert expected.keys() == found.keys()
        assert max(float((expected[name] - found[name]).abs().max()) for name in expected) <= 2e-5  # a tenth of a step
    first, second = (pd.read_parquet(folder / "losses.parquet")["validation_distance"] for folder in (alone, together))
    pd.testing.assert_series_equal(first, second, rtol=1e-4)
