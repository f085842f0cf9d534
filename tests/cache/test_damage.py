import pandas as pd
import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.damage import mean_damage, sampled_damage
from onex_distill.cache.plan import Bands, reuse_after_first
from onex_distill.flow.conversions import euler_step
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.sampling import sample_latents
from onex_distill.models.velocity import predict_velocity

SETS: list[Bands] = [((1, 2),), ((1, 3),), ((1, 2), (2, 3))]


def true_damage(
    transformer: SD3Transformer2DModel, noise: Tensor, sigmas: Tensor, prompts: PromptBatch, bands: Bands
) -> Tensor:
    """Two whole samplings, one of them cached from its first step on."""
    whole = sample_latents(transformer, noise, sigmas, prompts)
    plain = Compensation(transformer.inner_dim, [bands], "identity")
    cache = BlockCache(transformer, reuse_after_first(bands, len(sigmas) - 1), plain).attach()
    cached = sample_latents(transformer, noise, sigmas, prompts, before_step=cache.begin_step)
    cache.detach()
    return (cached - whole).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)


@pytest.mark.parametrize("steps", [2, 3])
def test_what_is_predicted_is_the_true_final_error_of_every_set(transformer, noise, prompts, steps):
    sigmas = step_sigmas(steps, 3.0)
    found = sampled_damage(transformer, noise, sigmas, prompts, SETS)
    expected = torch.stack([true_damage(transformer, noise, sigmas, prompts, bands) for bands in SETS])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found.min() > 1e-4


class Shift(nn.Module):
    """A block that adds its number times the mean of its modulation, whatever enters it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, joint_attention_kwargs: None = None
    ) -> tuple[Tensor, Tensor]:
        added = self.number * temb.mean(1)[:, None, None]
        return encoder_hidden_states + added, hidden_states + added


@torch.no_grad()
def test_the_error_is_that_of_the_residual_through_the_output_layer(transformer, noise, prompts):
    """With blocks that add constants the cached stream is known: the band's are those of the first step."""
    for number in range(4):
        transformer.transformer_blocks[number] = Shift(number)
    transformer.norm_out = Keep()
    first, last = 1.0, 0.75
    found = sampled_damage(transformer, noise, torch.tensor([first, last, 0.0]), prompts, [((1, 3),)])
    begun = euler_step(noise, predict_velocity(transformer, noise, first, prompts), first, last)
    whole = euler_step(begun, predict_velocity(transformer, begun, last, prompts), last, 0.0)
    condition = [
        transformer.time_text_embed(torch.full((len(noise),), 1000 * sigma), prompts.pooled).mean(1)
        for sigma in (first, last)
    ]
    change = 3 * (condition[0] - condition[1])  # blocks 1 and 2 add 1 and 2 times the mean
    tokens = change[:, None, None].expand(-1, 16, transformer.inner_dim)
    velocity = (tokens @ transformer.proj_out.weight.T).unflatten(1, (4, 4)).unflatten(3, (2, 2, 4))
    error = last * torch.einsum("bhwpqc->bchpwq", velocity).reshape_as(noise)
    expected = error.flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)
    torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-6)


class Keep(nn.Module):
    """An output norm that changes nothing."""

    def forward(self, hidden_states: Tensor, temb: Tensor) -> Tensor:
        return hidden_states


def test_what_does_not_change_between_the_steps_does_no_damage(transformer, noise, prompts):
    class Constant(nn.Module):
        def forward(self, hidden_states, encoder_hidden_states, temb, joint_attention_kwargs):
            return encoder_hidden_states + 1, hidden_states + 2

    transformer.transformer_blocks[1] = Constant()
    damage = sampled_damage(transformer, noise, step_sigmas(2, 3.0), prompts, [((1, 2),), ((2, 3),)])
    assert damage[0].max() < 1e-5
    assert damage[1].min() > 1e-4


@pytest.mark.parametrize("batch_size", [2, 4])
def test_the_mean_is_over_all_rows_and_the_least_damage_comes_first(transformer, prompt_tables, batch_size):
    plan = pd.DataFrame({"prompt_row": [0, 3, 1], "noise_seed": [7, 8, 9]})
    noise = noise_from_seeds(plan["noise_seed"], latent_shape(transformer))
    rows = read_prompts(prompt_tables.prompts, [0, 3, 1], torch.device("cpu"))
    means = sampled_damage(transformer, noise, step_sigmas(3, 3.0), rows, SETS).mean(1).tolist()
    table = mean_damage(transformer, prompt_tables.prompts, plan, 3.0, 3, SETS, batch_size)
    assert dict(zip(table["bands"], table["predicted"], strict=True)) == pytest.approx(
        dict(zip(SETS, means, strict=True)), rel=1e-4
    )
    assert table["predicted"].is_monotonic_increasing


def test_the_transformer_is_left_as_it_was(transformer, noise, prompts):
    sigmas = step_sigmas(2, 3.0)
    before = sample_latents(transformer, noise, sigmas, prompts)
    sampled_damage(transformer, noise, sigmas, prompts, SETS)
    assert torch.equal(sample_latents(transformer, noise, sigmas, prompts), before)
    assert not any(block._forward_pre_hooks for block in transformer.transformer_blocks)


def test_a_band_outside_the_model_is_refused(transformer, noise, prompts):
    with pytest.raises(ValueError, match=r"band \[2, 4\]"):
        sampled_damage(transformer, noise, step_sigmas(2, 3.0), prompts, [((2, 4),)])
