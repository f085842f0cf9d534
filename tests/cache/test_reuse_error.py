import pandas as pd
import pytest
import torch
from torch import nn

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import CachePlan
from onex_distill.cache.reuse_error import mean_reuse_errors, sampled_reuse_errors
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.velocity import predict_velocity

BANDS = ((1, 3), (2, 3))
SIGMAS = step_sigmas(3, 3.0)


@torch.no_grad()
def stored_deltas(transformer, noise, prompts, band):
    """The residual of one band in every step, as the cache stores it."""
    plan = CachePlan([band], [[True]] * 3)
    cache = BlockCache(transformer, plan, Compensation(16, [[band]], "identity")).attach()
    x_t, deltas = noise, []
    for step in range(3):
        cache.begin_step(step)
        velocity = predict_velocity(transformer, x_t, float(SIGMAS[step]), prompts)
        x_t = x_t + (SIGMAS[step + 1] - SIGMAS[step]) * velocity
        deltas.append(cache.step.deltas[0])
    cache.detach()
    return deltas


def errors_of(table, **place):
    chosen = table[(table[list(place)] == pd.Series(place)).all(axis=1)]
    return torch.tensor(chosen["reuse_error"].to_list())


@pytest.mark.parametrize("band", [(1, 3), (1, 2), (2, 3)])
def test_errors_are_those_of_the_residuals_that_the_cache_stores(transformer, prompts, noise, band):
    table = sampled_reuse_errors(transformer, noise, SIGMAS, prompts, BANDS)
    deltas = stored_deltas(transformer, noise, prompts, band)
    for step in (1, 2):
        for number, stream in enumerate(("text", "image")):
            now, before = deltas[step][number].flatten(1), deltas[step - 1][number].flatten(1)
            expected = (now - before).norm(dim=1) / now.norm(dim=1)
            found = errors_of(table, step=step, block=band[0], stop=band[1], stream=stream)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_every_block_and_band_has_a_row_per_stream_step_and_sample(transformer, prompts, noise):
    table = sampled_reuse_errors(transformer, noise, SIGMAS, prompts, BANDS)
    ranges = {(0, 1), (1, 2), (2, 3), (3, 4), (1, 3)}
    assert set(zip(table["block"], table["stop"], strict=True)) == ranges
    last = table[table["block"] == 3]
    assert set(last["stream"]) == {"image"}  # the last block has no text output
    assert len(table) == (2 * len(ranges) - 1) * 2 * len(noise)


def test_a_block_that_ignores_its_input_has_no_error(transformer, prompts, noise):
    class Constant(nn.Module):
        def forward(self, hidden_states, encoder_hidden_states, temb, joint_attention_kwargs):
            return encoder_hidden_states + 1, hidden_states + 2

    transformer.transformer_blocks[1] = Constant()
    table = sampled_reuse_errors(transformer, noise, SIGMAS, prompts, [])
    assert errors_of(table, block=1).max() < 1e-5
    assert errors_of(table, block=2).min() > 1e-3


def test_the_transformer_is_left_as_it_was(transformer, prompts, noise):
    with torch.no_grad():
        plain = predict_velocity(transformer, noise, 1.0, prompts)
    sampled_reuse_errors(transformer, noise, SIGMAS, prompts, BANDS)
    with torch.no_grad():
        assert torch.equal(predict_velocity(transformer, noise, 1.0, prompts), plain)
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in transformer.transformer_blocks)


@pytest.mark.parametrize("batch_size", [2, 4])
def test_the_mean_is_over_all_rows_whatever_the_batches(transformer, prompt_tables, batch_size):
    plan = pd.DataFrame({"prompt_row": [0, 3, 1], "noise_seed": [7, 8, 9]})
    noise = noise_from_seeds(plan["noise_seed"], latent_shape(transformer))
    samples = sampled_reuse_errors(
        transformer, noise, SIGMAS, read_prompts(prompt_tables.prompts, [0, 3, 1], torch.device("cpu")), [(1, 3)]
    )
    table = mean_reuse_errors(transformer, prompt_tables.prompts, plan, 3.0, 3, [(1, 3)], batch_size)
    place = {"step": 2, "block": 1, "stop": 3, "stream": "text"}
    assert errors_of(table, **place).item() == pytest.approx(errors_of(samples, **place).mean().item(), rel=1e-4)
    assert len(table) == len(samples) // 3


def test_a_band_outside_the_model_is_refused(transformer, prompts, noise):
    with pytest.raises(ValueError, match=r"band \[2, 4\]"):
        sampled_reuse_errors(transformer, noise, SIGMAS, prompts, [(2, 4)])
