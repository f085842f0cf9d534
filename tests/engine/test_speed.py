"""Compiled blocks and attention kernels change nothing but the time, and what a machine lacks is refused."""

from functools import partialmethod

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from gradients_driver import first_updates
from onex_distill.distill.stage_one.watching import WatchParams
from onex_distill.engine.launch import launch
from onex_distill.engine.speed import attention, check_speed, compile_blocks
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.velocity import predict_velocity

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


def velocity_and_gradients(
    transformer: SD3Transformer2DModel, noise: Tensor, prompts: PromptBatch, half: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The velocity at two levels of noise, and the gradient of its mean square."""
    device = transformer.device
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        sigma = torch.tensor([0.9, 0.5, 0.2], device=device)
        velocity = predict_velocity(transformer, noise.to(device), sigma, prompts.to(device))
    transformer.zero_grad()
    velocity.square().mean().backward()
    return velocity.detach(), {name: p.grad.clone() for name, p in transformer.named_parameters() if p.grad is not None}


@pytest.fixture
def traced_only(monkeypatch) -> None:
    """torch.compile without its compiler, which takes minutes: blocks are traced, and run as they were traced."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))


def test_traced_blocks_give_the_same(traced_only, transformer, prompts, noise):
    plain = velocity_and_gradients(transformer, noise, prompts, half=False)
    compile_blocks(transformer)
    torch.testing.assert_close(velocity_and_gradients(transformer, noise, prompts, half=False), plain)


@pytest.mark.parametrize("changes", [{}, {"parametrization": "shared_backbone", "gradient_checkpointing": True}])
def test_a_training_of_compiled_blocks_has_the_same_gradients(traced_only, jobs, ranks, tmp_path, changes):
    settings = {"steps": 2, "watch": WatchParams(every=100, prompts=1, images=2), "validation": None, **changes}
    plain, compiled = (
        first_updates(jobs("stage_one", tmp_path / kind, compile=kind, **settings), ranks)
        for kind in ("none", "blocks")
    )
    for expected, found in zip(plain, compiled, strict=True):
        for a, b in zip(expected, found, strict=True):
            assert a["names"] == b["names"]
            torch.testing.assert_close(b["vector"], a["vector"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), CUDA])
def test_compiled_blocks_give_the_same(transformer, prompts, noise, device):
    transformer = transformer.to(device)
    names, kind = list(transformer.state_dict()), type(transformer.transformer_blocks[0])
    plain = velocity_and_gradients(transformer, noise, prompts, half=False)
    compiled = velocity_and_gradients(compile_blocks(transformer), noise, prompts, half=False)
    assert list(transformer.state_dict()) == names
    assert type(transformer.transformer_blocks[0]) is kind
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "name", "half"),
    [("cpu", "flash", False), ("cpu", "sdpa", False)]
    + [pytest.param("cuda", name, True, marks=pytest.mark.gpu) for name in ("flash", "cudnn", "sdpa")],
)
def test_an_attention_kernel_gives_the_same(transformer, prompts, noise, device, name, half):
    transformer = transformer.to(device)
    plain = velocity_and_gradients(transformer, noise, prompts, half)
    with attention(name):
        chosen = velocity_and_gradients(transformer, noise, prompts, half)
    tolerance = {"rtol": 0.02, "atol": 0.02} if half else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(chosen, plain, **tolerance)


def test_the_chosen_kernel_is_the_one_that_runs(transformer, prompts, noise):
    with torch.profiler.profile() as profile, attention("flash"):
        velocity_and_gradients(transformer, noise, prompts, half=False)
    called = {event.key for event in profile.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in called


@pytest.mark.parametrize(
    ("change", "message"),
    [({"attention": "cudnn"}, "compute.attention cudnn needs a CUDA device and this machine runs on cpu; use compute")],
)
def test_what_this_machine_lacks_is_refused_in_one_line(compute, change, message):
    with pytest.raises(ValueError, match=message) as error:
        check_speed(compute.model_copy(update=change))
    assert "\n" not in str(error.value)


def test_a_missing_compiler_is_refused_in_one_line(compute, monkeypatch):
    def broken(function):
        raise RuntimeError("InvalidCxxCompiler: no compiler\nand a long trace")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ValueError, match=r"blocks: .* \(InvalidCxxCompiler: no compiler\); install") as error:
        check_speed(compute.model_copy(update={"compile": "blocks"}))
    assert "\n" not in str(error.value)


def test_a_job_is_refused_before_any_work(jobs, tmp_path):
    job = jobs("stage_one", tmp_path / "run", attention="cudnn")
    with pytest.raises(ValueError, match="needs a CUDA device"):
        launch(job)
    assert not job.folder.exists()


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("change", "message"), [({"mixed_precision": "fp32"}, "half precision alone; set mixed_precision bf16")]
)
def test_half_precision_kernels_want_half_precision(compute, change, message):
    with pytest.raises(ValueError, match=message):
        check_speed(compute.model_copy(update={"device": "auto", "attention": "flash", **change}))
