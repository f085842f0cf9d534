from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.sampling import Guidance, decode_latents, sample_latents


class LinearVelocity(nn.Module):
    """velocity = rate * x_t + mean of the prompt's embeddings."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.timesteps: list[Tensor] = []

    def forward(self, hidden_states, timestep, encoder_hidden_states, pooled_projections, return_dict):
        self.timesteps.append(timestep)
        return (self.rate * hidden_states + encoder_hidden_states.mean((1, 2))[:, None, None, None],)


class LinearAutoencoder:
    """Latents are half the pixel values in [-1, 1], plus two."""

    config = SimpleNamespace(scaling_factor=4.0, shift_factor=2.0)
    dtype = torch.float32

    def encode(self, images: Tensor) -> Tensor:
        return (images * 2 - 1) / 2 + 2

    def decode(self, latents: Tensor, return_dict: bool) -> tuple[Tensor]:
        return ((latents - 2) * 2,)


def test_one_step_subtracts_the_velocity(prompts, noise):
    x0 = sample_latents(LinearVelocity(0.25), noise, step_sigmas(1, 3.0), prompts)
    shift = prompts.embeds.mean((1, 2))[:, None, None, None]
    torch.testing.assert_close(x0, 0.75 * noise - shift)


def test_two_steps_follow_the_shifted_schedule(prompts, noise):
    network = LinearVelocity(0.5)
    x0 = sample_latents(network, noise, step_sigmas(2, 3.0), prompts)
    shift = prompts.embeds.mean((1, 2))[:, None, None, None]
    middle = noise - 0.25 * (0.5 * noise + shift)
    torch.testing.assert_close(x0, middle - 0.75 * (0.5 * middle + shift))
    assert [float(t[0]) for t in network.timesteps] == [1000.0, 750.0]


def test_every_step_is_announced_before_it_runs(prompts, noise):
    network, seen = LinearVelocity(0.5), []
    sample_latents(
        network,
        noise,
        step_sigmas(3, 3.0),
        prompts,
        before_step=lambda step: seen.append((step, len(network.timesteps))),
    )
    assert seen == [(0, 0), (1, 1), (2, 2)]


def test_guidance_extrapolates_from_the_empty_prompt(prompts, empty, noise):
    x0 = sample_latents(LinearVelocity(0.0), noise, step_sigmas(1, 3.0), prompts, Guidance(3.0, empty))
    conditional = prompts.embeds.mean((1, 2))[:, None, None, None]
    unconditional = empty.embeds.mean()
    torch.testing.assert_close(x0, noise - (unconditional + 3 * (conditional - unconditional)))


@pytest.mark.parametrize(("alpha", "guided"), [(1.0, 1.0), (0.8, 0.75), (0.75, 0.75), (0.7, 0.0)])
def test_steps_from_above_alpha_are_not_guided(prompts, empty, noise, alpha, guided):
    network = LinearVelocity(0.0)
    x0 = sample_latents(network, noise, step_sigmas(2, 3.0), prompts, Guidance(3.0, empty, alpha))
    conditional, unconditional = prompts.embeds.mean((1, 2)), empty.embeds.mean()
    mean = conditional + guided * 2 * (conditional - unconditional)
    torch.testing.assert_close(x0, noise - mean[:, None, None, None])
    assert sum(len(t) for t in network.timesteps) == 6 + 3 * ((alpha == 1) + (alpha >= 0.75))


def test_sampling_leaves_its_noise_alone(prompts, noise):
    before = noise.clone()
    sample_latents(LinearVelocity(0.5), noise, step_sigmas(2, 3.0), prompts)
    assert torch.equal(noise, before)


def test_decoding_undoes_scale_and_shift():
    autoencoder, images = LinearAutoencoder(), torch.rand(2, 3, 4, 4)
    latents = (autoencoder.encode(images) - autoencoder.config.shift_factor) * autoencoder.config.scaling_factor
    torch.testing.assert_close(decode_latents(autoencoder, latents), images)


def test_decoded_images_are_not_clamped_and_differentiable_everywhere():
    latents = torch.tensor([[[[-100.0, 0.0, 100.0]]]], requires_grad=True)
    images = decode_latents(LinearAutoencoder(), latents)
    assert images[..., 0].item() < 0 < images[..., 1].item() < 1 < images[..., 2].item()
    images.sum().backward()
    assert (latents.grad > 0).all()
