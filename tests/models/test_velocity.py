import pytest
import torch

from onex_distill.models.prompts import PromptBatch
from onex_distill.models.velocity import predict_guided_velocity, predict_velocity


def record_calls(transformer: torch.nn.Module) -> list[dict[str, torch.Tensor]]:
    calls: list[dict[str, torch.Tensor]] = []
    transformer.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True)
    return calls


@torch.no_grad()
@pytest.mark.parametrize("sigma", [0.9995, torch.tensor([0.9995, 0.5, 0.0033])])
def test_timestep_reaches_a_bf16_network_in_float32(transformer, prompts, noise, sigma):
    transformer.to(torch.bfloat16)
    calls = record_calls(transformer)
    half = PromptBatch(prompts.embeds.bfloat16(), prompts.pooled.bfloat16())
    velocity = predict_velocity(transformer, noise.bfloat16(), sigma, half)
    assert velocity.dtype == torch.bfloat16
    assert calls[0]["timestep"].dtype == torch.float32
    expected = 1000 * torch.as_tensor(sigma).expand(3)
    torch.testing.assert_close(calls[0]["timestep"], expected, rtol=1e-6, atol=0)


@torch.no_grad()
def test_one_level_for_all_equals_a_level_each(transformer, prompts, noise):
    together = predict_velocity(transformer, noise, 0.6, prompts)
    assert torch.equal(together, predict_velocity(transformer, noise, torch.full((3,), 0.6), prompts))


@torch.no_grad()
@pytest.mark.parametrize("guided", [[True, False, True], [False, False, True], [False] * 3, [True] * 3])
def test_guidance_row_by_row(transformer, prompts, empty, noise, guided):
    sigmas, scale = torch.tensor([0.9, 0.7, 0.3]), 5.0
    velocity = predict_guided_velocity(transformer, noise, sigmas, prompts, empty, scale, torch.tensor(guided))
    for i, is_guided in enumerate(guided):
        row = slice(i, i + 1)
        expected = predict_velocity(transformer, noise[row], sigmas[row], prompts[torch.tensor([i])])
        if is_guided:
            unconditional = predict_velocity(transformer, noise[row], sigmas[row], empty)
            expected = unconditional + scale * (expected - unconditional)
        torch.testing.assert_close(velocity[row], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("guided", "rows"), [([True, False, True], 5), ([False] * 3, 3), ([True] * 3, 6)])
def test_one_forward_pays_only_for_guided_rows(transformer, prompts, empty, noise, guided, rows):
    calls = record_calls(transformer)
    predict_guided_velocity(transformer, noise, 0.5, prompts, empty, 5.0, torch.tensor(guided))
    assert [len(call["hidden_states"]) for call in calls] == [rows]


@torch.no_grad()
def test_scale_one_is_the_conditional_velocity(transformer, prompts, empty, noise):
    velocity = predict_guided_velocity(transformer, noise, 0.5, prompts, empty, 1.0, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(velocity, predict_velocity(transformer, noise, 0.5, prompts), rtol=1e-4, atol=1e-5)
