from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from onex_distill.distill.stage_two.adversary import (
    AdversaryParams,
    Judges,
    build_judges,
    discriminator_terms,
    generator_terms,
    total,
    values,
)
from onex_distill.distill.stage_two.backbones import TimmBackbone
from onex_distill.distill.stage_two.discriminator import Discriminator
from onex_distill.engine.launch import launch
from onex_distill.engine.randomness import seeded
from onex_distill.losses import adversarial
from onex_distill.losses.perceptual import perceptual_distance

CPU = torch.device("cpu")


@pytest.fixture
def params(adversarial_params) -> AdversaryParams:
    return adversarial_params


@pytest.fixture
def judges(inputs, params) -> Judges:
    with seeded(1):
        built = build_judges(inputs.recogniser, params, CPU)
    built.discriminator.eval()
    return built


@pytest.fixture
def discriminator(judges) -> Discriminator:
    return judges.discriminator


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    return torch.rand(3, 3, 32, 32, generator=draws), torch.rand(3, 3, 32, 32, generator=draws)


def never() -> Tensor:
    raise AssertionError("this has no weight")


@pytest.mark.parametrize("name", ["label_smoothed", "hinge", "relativistic"])
def test_the_named_loss_is_computed_and_nothing_else(judges, discriminator, images, params, name):
    real, fake = images
    named = params.model_copy(update={"adversarial_loss": name})
    terms = discriminator_terms(discriminator, real, fake, named, never)
    logits = discriminator(real), discriminator(fake)
    expected = adversarial.discriminator_loss(name, *logits, 0.8)
    assert list(terms) == ["discriminator_loss"]
    torch.testing.assert_close(total(terms), expected)
    reference = (lambda: real) if name == "relativistic" else never
    terms = generator_terms(judges, fake, reference, named)
    assert list(terms) == ["generator_loss"]
    torch.testing.assert_close(total(terms), adversarial.generator_loss(name, logits[1], 0.8, logits[0]))


def test_penalties_are_weighted(discriminator, images, params):
    real, fake = images
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(3))
    weights = params.penalties.model_copy(update={"r1": 2.0, "r2": 3.0, "approximate_r1": 4.0})
    terms = discriminator_terms(
        discriminator, real, fake, params.model_copy(update={"penalties": weights}), lambda: noise
    )
    noisy = discriminator(real + 0.1 * noise)
    expected = {
        "r1_penalty": adversarial.gradient_penalty(discriminator(real), real),
        "r2_penalty": adversarial.gradient_penalty(discriminator(fake), fake),
        "approximate_r1_penalty": adversarial.approximate_gradient_penalty(discriminator(real), noisy, 0.1),
    }
    for name, penalty in expected.items():
        torch.testing.assert_close(terms[name][1], penalty)
    found = values(terms)
    weighted = found["discriminator_loss"] + 2 * found["r1_penalty"] + 3 * found["r2_penalty"]
    assert float(total(terms).detach()) == pytest.approx(weighted + 4 * found["approximate_r1_penalty"], rel=1e-5)


def test_the_perceptual_loss_compares_with_the_reference(judges, images, params):
    real, fake = images
    weighted = params.model_copy(update={"perceptual_weight": 0.5, "adversarial_weight": 0.0})
    terms = generator_terms(judges, fake.requires_grad_(), lambda: real, weighted)
    assert list(terms) == ["perceptual_loss"]
    weight, loss = terms["perceptual_loss"]
    assert weight == 0.5

    def levels(seen: Tensor) -> list[Tensor]:
        return judges.backbone.levels_and_features(seen)[0]

    torch.testing.assert_close(loss, perceptual_distance(levels(fake), levels(real)))
    (gradient,) = torch.autograd.grad(loss, fake)
    assert gradient.abs().sum() > 0


@pytest.fixture
def timm_weights(tmp_path) -> Path:
    with seeded(0):
        model = timm.create_model("test_convnext", pretrained=False)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_run_stands_on_the_named_backbone(jobs, tmp_path, timm_weights, inputs):
    backbone = {
        "kind": "timm",
        "name": "test_convnext",
        "weights": str(timm_weights),
        "size": None,
        "levels": [0, 1, 2],
    }
    job = jobs("stage_two", tmp_path / "run", backbone=backbone)
    assert isinstance(build_judges(inputs.recogniser, job.params, CPU).backbone, TimmBackbone)
    assert (launch(job) / "student").is_dir()
