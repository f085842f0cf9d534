"""Resources are foreseen from shapes alone, and refused in one line when they are not there."""

import shutil

import pytest
import timm

from onex_distill.distill.planner import (
    Need,
    available_disk,
    available_memory,
    remedy,
    require_fit,
    stage_one_need,
    stage_two_need,
)
from onex_distill.distill.planner.judging import judging
from onex_distill.distill.stage_two.backbones import TimmParams
from onex_distill.distill.stage_two.params import AdversarialParams

GIB = 2**30


def timm_params(name):
    return TimmParams(kind="timm", name=name, weights=None, size=None, levels=(1, 2))


def test_sharding_divides_the_state_and_ranks_the_batch(inputs, stage_one_params, compute):
    alone = stage_one_need(inputs.teacher, 12, stage_one_params.model_copy(update={"batch_size": 8}), compute)
    ranks = compute.model_copy(update={"processes": 8, "sharding": "ddp"})
    sharded = ranks.model_copy(update={"sharding": "fsdp2"})
    params = stage_one_params.model_copy(update={"batch_size": 8})
    ddp, fsdp2 = (stage_one_need(inputs.teacher, 12, params, settings) for settings in (ranks, sharded))
    assert fsdp2.memory < ddp.memory < alone.memory
    assert fsdp2.disk == alone.disk


def test_adapters_need_less_than_full_training(inputs, stage_one_params, adversarial_params, compute):
    one = stage_one_need(inputs.teacher, 12, stage_one_params, compute)
    two = stage_two_need(inputs.teacher, inputs.recogniser, 12, adversarial_params, compute)
    assert two.disk < one.disk


@pytest.mark.parametrize(
    ("need", "message"),
    [
        (Need(20 * GIB, 0), r"stage needs 20\.0 GiB of memory per rank and 8\.0 are there; do this"),
        (Need(0, 9 * GIB), r"need 9\.0 GiB of disk up to stage and 8\.0 are free; free space, or move the data with"),
    ],
)
def test_what_cannot_fit_is_refused(need, message):
    with pytest.raises(ValueError, match=message):
        require_fit("stage", need, 8 * GIB, 8 * GIB, "do this")
    require_fit("stage", Need(GIB, GIB), 8 * GIB, 8 * GIB, "")


def test_a_remedy_is_the_gentlest_that_fits(stage_one_params, compute):
    def need_of(params, where):
        memory = 10 if params.gradient_checkpointing else 20
        memory -= (
            (params.micro_batch_size == 1)
            + 2 * (where.sharding == "fsdp2")
            + 2 * (params.fake_score.kind == "adamw_8bit")
        )
        return Need(memory * GIB, 0)

    ranks = compute.model_copy(update={"processes": 2, "sharding": "ddp"})
    advice = [remedy(need_of, stage_one_params, ranks, size * GIB) for size in (12, 8, 1)]
    assert advice[0] == "it fits, in 10.0 GiB, with gradient_checkpointing true"
    assert (
        advice[1] == "it fits, in 7.0 GiB, with gradient_checkpointing true, micro_batch_size 1, compute.sharding fsdp2"
    )
    assert advice[2].startswith("no setting makes it fit on ranks of this size")
    alone = remedy(need_of, stage_one_params, compute, 7 * GIB)
    assert alone.startswith("it fits, in 7.0 GiB, with")
    assert alone.endswith("micro_batch_size 1, optimizers of kind adamw_8bit")


def test_what_is_there_is_shared_by_the_machines_processes(compute, tmp_path):
    half = compute.model_copy(update={"processes": 2})
    assert available_memory(half) == pytest.approx(available_memory(compute) / 2, rel=0.2)
    assert available_disk(tmp_path / "not" / "yet" / "there") > 0
    assert available_disk(tmp_path / "not") == pytest.approx(shutil.disk_usage(tmp_path).free, abs=GIB)


def test_a_cotraining_needs_its_compensation_and_residuals_too(inputs, cotraining_params, compute):
    params = cotraining_params.model_copy(update={"candidates": (((1, 2),), ((1, 2), (3, 4))), "batch_size": 3})
    alone = AdversarialParams(**{name: getattr(params, name) for name in AdversarialParams.model_fields})
    cached, plain = (stage_two_need(inputs.teacher, inputs.recogniser, 12, p, compute) for p in (params, alone))
    width, tokens, functions = 16, 12 + 16, 2 * 2  # two bands of two streams
    trained = functions * (2 * width + (width + 1) * 2 * width + (2 * width + 1) * width)
    residuals = 2 * 3 * tokens * width * 4
    assert cached.memory - plain.memory == trained * (4 + 4 + 8) + residuals
    assert cached.disk - plain.disk == trained * (3 * (4 + 8) + 4)
    half = compute.model_copy(update={"mixed_precision": "bf16"})
    cached, plain = (stage_two_need(inputs.teacher, inputs.recogniser, 12, p, half) for p in (params, alone))
    assert cached.memory - plain.memory == trained * (4 + 4 + 8) + residuals // 2
    fitted = params.model_copy(update={"fitting_steps": 9, "fitting_batches": 5, "fitting_batch_size": 7})
    fitting, plain = (stage_two_need(inputs.teacher, inputs.recogniser, 12, p, compute) for p in (fitted, alone))
    rows = (5 + 1) * 7  # with the batch that is held out
    states = 4 * 2  # what enters blocks 1, 2, 3 and 4 in two steps
    assert fitting.memory - plain.memory == trained * (4 + 4 + 8) + rows * states * tokens * width * 4


def test_an_adversarial_training_needs_its_backbone(inputs):
    named = timm_params("resnet10t")
    small, large = (judging(named, 8, inputs.recogniser, (2, 3, size, size), False) for size in (64, 128))
    network = timm.create_model("resnet10t")
    assert small.backbone == sum(parameter.numel() for parameter in network.parameters())
    assert small.heads == large.heads


def test_a_backbone_that_nobody_knows_is_refused(inputs, adversarial_params, compute):
    named = adversarial_params.model_copy(update={"backbone": timm_params("resnet1O")})
    with pytest.raises(ValueError, match="unknown timm model 'resnet1O'; did you mean"):
        stage_two_need(inputs.teacher, inputs.recogniser, 12, named, compute)
