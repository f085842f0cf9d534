"""Stage two and co-training of the real models, as published."""

from typing import Any

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.distill.stage_two.schedule import Phase
from onex_distill.engine.accumulation import check_micro_batch
from support import PROJECT

RANKS = 8


@pytest.fixture(scope="module", params=["sd3_medium", "sd35_large"])
def tree(request) -> dict[str, Any]:
    """The parameters of a real model, as nodes get them."""
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env=request.param) as session:
        return dict(session.load_context().params)


def adversarial(tree: dict[str, Any]) -> dict[str, AdversarialParams]:
    return {
        "reference": tree["reference"]["stage_two"],
        "student": tree["student"]["stage_two"],
        "fractional_167": tree["fractional_167"]["cotraining"],
        "fractional_175": tree["fractional_175"]["cotraining"],
    }


def test_4000_iterations_hold_the_published_updates(tree):
    """1317 of the generator; in co-training, 317 of the compensation alone and 1000 of both."""
    for name, params in adversarial(tree).items():
        alone = 317 if name.startswith("fractional") else 0
        assert params.schedule.counts == {
            Phase.FITTING: 0,
            Phase.DISCRIMINATOR: 4000 - 1317,
            Phase.WARM_UP: alone,
            Phase.GENERATOR: 1317 - alone,
        }


def test_updates_are_of_32_rows_that_are_never_the_same(tree):
    for params in adversarial(tree).values():
        assert (params.batch_size, params.micro_batch_size, params.references) == (32, 1, "online")
        check_micro_batch(params.batch_size, params.micro_batch_size, RANKS)
        assert params.batch_size * params.loop.steps == 128_000


def test_optimisers(tree):
    for params in adversarial(tree).values():
        for optimizer, clip_norm in ((params.student, 2.0), (params.discriminator, None)):
            assert (optimizer.lr, optimizer.betas, optimizer.weight_decay) == (1e-5, (0.9, 0.95), 1e-4)
            assert (optimizer.clip_norm, optimizer.schedule, optimizer.warmup_steps) == (
                clip_norm,
                "constant_with_warmup",
                0,
            )
    compensation = tree["fractional_167"]["cotraining"].compensation
    assert (compensation.lr, compensation.clip_norm, compensation.schedule) == (1e-3, 2.0, "constant_with_warmup")


def test_the_adversary(tree):
    for params in adversarial(tree).values():
        assert (params.backbone.name, params.backbone.size, params.backbone.levels) == (
            "convnext_xxlarge.clip_laion2b_soup",
            None,
            (0, 1, 2),
        )
        assert params.discriminator_hidden == 512
        assert (params.adversarial_loss, params.label_smoothing, params.adversarial_weight) == (
            "label_smoothed",
            0.8,
            1,
        )
        others = (params.output_weight, params.feature_weight, params.perceptual_weight)
        assert others == (0, 0, 0)
        assert params.gradient_checkpointing
        assert params.decoder_precision == "bf16"
        assert (params.lora.rank, params.lora.alpha) == (64, 64)
