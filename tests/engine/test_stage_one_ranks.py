"""The further choices of stage one over two processes: every rank calls every network equally often."""

import pandas as pd
import pytest
from safetensors.torch import load_file

from onex_distill.distill.stage_one.latent_gan import LatentGanParams
from onex_distill.distill.stage_one.watching import WatchParams
from onex_distill.engine.launch import launch

SHARED = {"parametrization": "shared_backbone", "gradient_checkpointing": True}
PUBLISHED = {"ema_decay": 0.0, "gradient_checkpointing": True}
CHOICES = {"num_inference_steps": (1, 2, 4), "fake_updates": 2, "matched": "x0", "sigma_range": "full"}
GAN = {"latent_gan": LatentGanParams(student_weight=0.1, fake_score_weight=0.2, hidden=4)}
OFTEN = {"watch": WatchParams(every=1, prompts=2, images=2), "checkpoint_every": 4}  # no checkpoint in between


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_a_backbone_in_half_precision_trains_over_two_processes(jobs, tmp_path, sharding):
    together = jobs("stage_one", tmp_path / "two", processes=2, sharding=sharding, mixed_precision="bf16", **SHARED)
    losses = pd.read_parquet(launch(together) / "losses.parquet")
    assert losses.drop(columns=["grid_diversity", "validation_distance"]).notna().all().all()


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
@pytest.mark.parametrize("changes", [SHARED, CHOICES | OFTEN | GAN, PUBLISHED], ids=["shared", "choices", "published"])
def test_two_processes_do_what_one_does(jobs, inputs, tmp_path, optimizer, sharding, changes):
    slower = optimizer.model_copy(update={"lr": 2e-4, "eps": 1e-6})
    settings = {**changes, "student": slower, "fake_score": slower, "real_latents": inputs.validation}
    alone = launch(jobs("stage_one", tmp_path / "alone", **settings))
    together = launch(jobs("stage_one", tmp_path / "two", processes=2, sharding=sharding, **settings))
    for student in ("student", "best"):
        expected, found = (
            load_file(folder / student / "diffusion_pytorch_model.safetensors") for folder in (alone, together)
        )
        assert expected.keys() == found.keys()
        assert max(float((expected[name] - found[name]).abs().max()) for name in expected) <= 2e-5  # a tenth of a step
    first, second = (pd.read_parquet(folder / "losses.parquet")["validation_distance"] for folder in (alone, together))
    pd.testing.assert_series_equal(first, second, rtol=1e-4)
