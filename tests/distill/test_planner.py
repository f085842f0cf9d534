"""Resources are foreseen from shapes alone, and refused in one line when they are not there."""

import json
import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from onex_distill.distill.planner import (
    Need,
    available_disk,
    available_memory,
    require_fit,
    saved_bytes,
    stage_one_need,
    stage_two_need,
)
from onex_distill.distill.stage_two.backbones import TimmParams
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.engine.randomness import seeded
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pretraining.architecture import build_transformer
from onex_distill.storage.model_folder import save_model

GIB = 2**30

# the most memory that tensors ever take: every allocation on the meta device's opposite, a real CPU, is counted
MEASURE = """
import json, sys, tracemalloc, threading, time, psutil
from pathlib import Path
from onex_distill.engine.job import read_job
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run
from onex_distill.distill.stage_one.trainer import StageOneTrainer
job = read_job(Path(sys.argv[1]))[0]
process, peak, done = psutil.Process(), [0], threading.Event()
before = process.memory_info().rss
def watch():
    while not done.is_set():
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
trainer = StageOneTrainer(job, Run(job.folder, {}, Ranks(job.compute)))
for step in range(2):
    trainer.update(step)
done.set()
thread.join()
print(json.dumps(peak[0] - before))
"""


def test_saved_bytes_of_a_linear_layer_are_its_input(compute):
    layer = nn.Linear(8, 4, device="meta")
    x = torch.empty(16, 8, device="meta")
    assert saved_bytes(layer, lambda: layer(x)) == 16 * 8 * 4


def test_saved_bytes_count_a_shared_tensor_once():
    x = torch.empty(10, device="meta", requires_grad=True)
    assert saved_bytes(nn.Module(), lambda: (x * 2).exp() * 3) == 10 * 4


@pytest.mark.slow
def test_the_plan_of_stage_one_is_close_to_what_it_takes(jobs, architecture, inputs, tmp_path):
    from onex_distill.engine.job import write_job

    wide = architecture.model_copy(update={"num_layers": 8, "attention_head_dim": 64, "num_attention_heads": 6})
    with seeded(0):
        transformer = build_transformer(wide)
    folder = inputs.teacher.path / "transformer"
    for path in folder.iterdir():
        path.unlink()
    save_model(transformer, folder)
    (inputs.teacher.path / "checksums.json").unlink(missing_ok=True)
    job = jobs("stage_one", tmp_path, teacher=TeacherFolder(path=inputs.teacher.path).transformer, batch_size=32)
    write_job(job, job.identity(), tmp_path / "job.json")
    measured = int(
        subprocess.run(
            [sys.executable, "-c", MEASURE, str(tmp_path / "job.json")], capture_output=True, check=True, text=True
        ).stdout.splitlines()[-1]
    )
    tokens = job.embeddings.open().read("prompt_embeds", [0]).shape[1]
    planned = stage_one_need(inputs.teacher, tokens, job.params, job.compute).memory
    print(f"planned {planned / 2**20:.0f} MiB, measured {measured / 2**20:.0f} MiB")
    assert 0.6 < planned / measured < 1.6


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
    two = stage_two_need(inputs.teacher, 12, adversarial_params, compute)
    assert two.disk < one.disk


@pytest.mark.parametrize(
    ("need", "message"),
    [
        (Need(20 * GIB, 0), r"stage needs 20\.0 GiB of memory a rank and 8\.0 are there; lower its batch_size, or set"),
        (Need(0, 9 * GIB), r"need 9\.0 GiB of disk up to stage and 8\.0 are free; free space, or move the data with"),
    ],
)
def test_what_cannot_fit_is_refused(compute, need, message):
    with pytest.raises(ValueError, match=message):
        require_fit("stage", need, 8 * GIB, 8 * GIB, compute)
    require_fit("stage", Need(GIB, GIB), 8 * GIB, 8 * GIB, compute)


def test_what_is_there_is_shared_by_the_machines_processes(compute, tmp_path):
    half = compute.model_copy(update={"processes": 2})
    assert available_memory(half) == pytest.approx(available_memory(compute) / 2, rel=0.2)
    assert available_disk(tmp_path / "not" / "yet" / "there") > 0
    assert json.dumps(available_disk(tmp_path))


def test_a_cotraining_needs_its_compensation_and_residuals_too(inputs, cotraining_params, compute):
    params = cotraining_params.model_copy(update={"candidates": (((1, 2),), ((1, 2), (3, 4))), "batch_size": 3})
    alone = AdversarialParams(**{name: getattr(params, name) for name in AdversarialParams.model_fields})
    cached, plain = (stage_two_need(inputs.teacher, 12, p, compute) for p in (params, alone))
    width, tokens, functions = 16, 12 + 16, 2 * 2  # two bands of two streams
    trained = functions * (2 * width + (width + 1) * 2 * width + (2 * width + 1) * width)
    residuals = 2 * 3 * tokens * width * 4
    assert cached.memory - plain.memory == trained * (4 + 4 + 8) + residuals
    assert cached.disk - plain.disk == trained * (3 * (4 + 8) + 4)
    half = compute.model_copy(update={"mixed_precision": "bf16"})
    cached, plain = (stage_two_need(inputs.teacher, 12, p, half) for p in (params, alone))
    assert cached.memory - plain.memory == trained * (4 + 4 + 8) + residuals // 2


def test_an_adversarial_training_needs_its_backbone(inputs, adversarial_params, compute):
    named = adversarial_params.model_copy(update={"backbone": TimmParams(kind="timm", name="resnet10t", weights=None)})
    more = stage_two_need(inputs.teacher, 12, named, compute).memory
    network = timm.create_model("resnet10t", features_only=True)
    weights = sum(parameter.numel() for parameter in network.parameters())
    assert more - stage_two_need(inputs.teacher, 12, adversarial_params, compute).memory == 4 * weights


def test_a_backbone_that_nobody_knows_is_refused(inputs, adversarial_params, compute):
    named = adversarial_params.model_copy(update={"backbone": TimmParams(kind="timm", name="resnet1O", weights=None)})
    with pytest.raises(ValueError, match="unknown timm model 'resnet1O'; did you mean"):
        stage_two_need(inputs.teacher, 12, named, compute)
