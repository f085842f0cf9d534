"""How an update is computed, in parts or with forwards that run twice, changes its gradients by rounding alone."""

from typing import Any
from unittest.mock import patch

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from onex_distill.distill.cotraining import residuals
from onex_distill.distill.cotraining.trainer import CotrainingTrainer
from onex_distill.distill.stage_two.adversary import PenaltyParams
from onex_distill.distill.stage_two.references import Batch, References
from onex_distill.distill.stage_two.trainer import AdversarialTrainer
from onex_distill.engine.launch import launch
from onex_distill.engine.optimisation import Stepper
from onex_distill.models.prompts import PromptBatch, read_prompts

PENALTIES = {"penalties": PenaltyParams(r1=0.1, r2=0.1, approximate_r1=0.1, noise_std=0.1)}
EVERYTHING = PENALTIES | {"perceptual_weight": 0.5, "output_weight": 0.5, "feature_weight": 0.1}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "stage two": ("stage_two", EVERYTHING),
    "stage two, relativistic": ("stage_two", {"adversarial_loss": "relativistic"}),
    "co-training": ("cotraining", EVERYTHING | {"compensation_warmup": 0}),
    "fitting": ("cotraining", {"fitting_steps": 2, "fitting_batch_size": 4}),
    "three steps": ("cotraining", {"num_inference_steps": 3, "compensation_warmup": 0}),
}
Gradients = dict[str, Tensor]


def prompts_in_double(prompts: PromptBatch) -> PromptBatch:
    return PromptBatch(prompts.embeds.double(), prompts.pooled.double())


def read_in_double(*arguments: Any) -> PromptBatch:
    return prompts_in_double(read_prompts(*arguments))


class InDouble:
    """References whose numbers are of double precision."""

    def __init__(self, references: References) -> None:
        self.references = references

    def batch(self, step: int, count: int) -> Batch:
        batch = self.references.batch(step, count)
        return Batch(prompts_in_double(batch.prompts), batch.noise.double(), batch.rows)

    def images(self, batch: Batch) -> Tensor:
        return self.references.images(batch).double()


def in_double(trainer: AdversarialTrainer) -> AdversarialTrainer:
    """The trainer with every network and input in double precision, where rounding is far below 1e-6."""
    networks = [trainer.transformer, trainer.autoencoder, trainer.judges.backbone, trainer.judges.discriminator]
    if isinstance(trainer, CotrainingTrainer):
        networks.append(trainer.compensation)
    for network in networks:
        network.double()
    trainer.references = InDouble(trainer.references)
    return trainer


def gradients_of(trainer: AdversarialTrainer) -> tuple[list[Gradients], list[dict[str, float]]]:
    """The gradients of every optimizer's first application, with weights held still, and the values of two steps."""
    if isinstance(trainer, CotrainingTrainer):  # at zero, half of its weights would have no gradient
        torch.manual_seed(0)
        for name, parameter in trainer.compensation.named_parameters():
            if ".down." in name:
                nn.init.normal_(parameter, std=0.1)
    in_double(trainer)
    found: list[Gradients] = []

    def record(stepper: Stepper, *_: Any) -> float:
        named = stepper.named.items()
        found.append({name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None})
        return 0.0

    def drop(stepper: Stepper, norm: float) -> None:
        stepper.discard()

    with (
        patch.object(Stepper, "reduce", record),
        patch.object(Stepper, "take", drop),
        patch.object(residuals, "read_prompts", read_in_double),
    ):
        values = [trainer.update(step) for step in range(2)]
    return found, values


def assert_same(expected: list[Gradients], found: list[Gradients]) -> None:
    assert [gradients.keys() for gradients in expected] == [gradients.keys() for gradients in found]
    for ours, theirs in zip(found, expected, strict=True):
        size = torch.cat([gradient.flatten() for gradient in theirs.values()]).norm()
        worst = max(float((ours[name] - theirs[name]).norm() / size) for name in theirs)
        assert size > 0
        assert worst <= 1e-6


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("title", RUNS)
def test_micro_batches_have_the_gradients_and_values_of_the_whole_batch(build, title, size):
    name, changes = RUNS[title]
    settings = {"batch_size": 4, "discriminator_warmup": 0, **changes}
    expected, whole = gradients_of(build(name, **settings))
    found, parts = gradients_of(build(name, micro_batch_size=size, **settings))
    assert_same(expected, found)
    for ours, theirs in zip(parts, whole, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("title", RUNS)
def test_checkpointing_has_the_gradients_of_the_plain_backward(build, title):
    """With a cache, a block that is recomputed has to see the residuals of its own step."""
    name, changes = RUNS[title]
    settings = {"batch_size": 4, "discriminator_warmup": 0, **changes}
    expected, _ = gradients_of(build(name, **settings))
    found, _ = gradients_of(build(name, gradient_checkpointing=True, micro_batch_size=2, **settings))
    assert_same(expected, found)


def forwards(module: nn.Module) -> list[None]:
    """An entry for every forward of the module from now on."""
    seen: list[None] = []
    module.register_forward_pre_hook(lambda *_: seen.append(None))
    return seen


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_checkpointing_runs_forwards_again_in_the_backward(build, batch, is_checkpointed):
    trainer = build("stage_two", gradient_checkpointing=is_checkpointed)
    blocks, decoder = (
        forwards(trainer.transformer.transformer_blocks[0]),
        forwards(trainer.autoencoder.decoder.mid_block),
    )
    trainer.update(1)
    assert (len(blocks), len(decoder)) == ((3, 2) if is_checkpointed else (2, 1))


def test_losses_are_logged_once_per_update(jobs, tmp_path):
    history = pd.read_parquet(launch(jobs("cotraining", tmp_path, batch_size=4, micro_batch_size=1)) / "losses.parquet")
    assert history["step"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("stage_two", {"batch_size": 4, "micro_batch_size": 3}),
        ("stage_two", {"batch_size": 4, "micro_batch_size": 4, "processes": 2, "sharding": "ddp"}),
        ("cotraining", {"batch_size": 4, "micro_batch_size": 2, "fitting_steps": 1, "fitting_batch_size": 3}),
    ],
)
def test_a_micro_batch_that_does_not_divide_is_refused(jobs, tmp_path, name, changes):
    with pytest.raises(ValueError, match=r"micro_batch_size \d on \d ranks does not divide batch_size \d"):
        jobs(name, tmp_path, **changes)


def test_the_decoder_works_in_the_given_precision(build, batch):
    trainer = build("stage_two", decoder_precision="bf16")
    assert {parameter.dtype for parameter in trainer.autoencoder.parameters()} == {torch.bfloat16}
    exact, images = build("stage_two")._decode(batch.noise), trainer._decode(batch.noise)
    assert images.dtype == torch.float32
    assert 0 < float((images - exact).norm() / exact.norm()) < 0.02
    assert trainer.update(1)["student_grad_norm"] > 0
