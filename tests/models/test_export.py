import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import nn

from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.block_cache import HOOK_NAME, BlockCache
from onex_distill.models.compensation import Compensation
from onex_distill.models.export import FractionalStableDiffusion3Pipeline
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import decode_latents, sample_latents
from onex_distill.models.text import encode_prompts
from onex_distill.models.tiny import seeded

BAND = (1, 3)
TEXTS = ["the red solid circle", "a hollow blue square"]


@pytest.fixture
def fractional(tiny_teacher) -> FractionalStableDiffusion3Pipeline:
    with seeded(2):
        compensation = Compensation(16, BAND)
        for stream in (compensation.text, compensation.image):
            nn.init.normal_(stream.down.weight, std=0.2)
    pipeline = FractionalStableDiffusion3Pipeline(
        **tiny_teacher.components, compensation=compensation.eval(), num_inference_steps=2, max_sequence_length=6
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def encoded(pipeline: StableDiffusion3Pipeline) -> PromptBatch:
    return PromptBatch(*encode_prompts(pipeline, TEXTS, 6))


@torch.no_grad()
def sampled_by_hand(pipeline: FractionalStableDiffusion3Pipeline, noise: torch.Tensor, steps: int = 2) -> torch.Tensor:
    cache = BlockCache(pipeline.transformer, BAND, pipeline.compensation).attach()
    x0 = sample_latents(
        pipeline.transformer, noise, step_sigmas(steps, 3.0), encoded(pipeline), before_step=cache.begin_step
    )
    cache.detach()
    return x0


def is_untouched(pipeline: FractionalStableDiffusion3Pipeline) -> bool:
    """No hook of a call is left."""
    blocks = pipeline.transformer.transformer_blocks
    hooked = [HOOK_NAME in block._diffusers_hook.hooks for block in blocks if hasattr(block, "_diffusers_hook")]
    return not any(hooked) and not pipeline.transformer._forward_pre_hooks


def test_the_default_call_equals_sampling_by_hand(fractional, noise):
    expected = sampled_by_hand(fractional, noise[:2])
    latents = fractional(TEXTS, latents=noise[:2], output_type="latent").images
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
    assert fractional.scheduler.sigmas.tolist() == [1.0, 0.75, 0.0]


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_any_number_of_steps_follows_the_students_schedule(fractional, noise, steps):
    expected = sampled_by_hand(fractional, noise[:2], steps)
    latents = fractional(TEXTS, latents=noise[:2], num_inference_steps=steps, output_type="latent").images
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_images_are_the_decoded_latents(fractional, noise):
    images = fractional(TEXTS, latents=noise[:2], output_type="pt").images
    expected = decode_latents(fractional.vae, sampled_by_hand(fractional, noise[:2]))
    torch.testing.assert_close(images, expected, rtol=1e-3, atol=1e-4)


def test_guidance_still_works(fractional, noise):
    plain = fractional(TEXTS, latents=noise[:2], output_type="latent").images
    guided = fractional(TEXTS, latents=noise[:2], guidance_scale=4.0, output_type="latent").images
    assert guided.shape == plain.shape
    assert not torch.allclose(guided, plain, atol=1e-3)


@torch.no_grad()
def test_without_compensation_every_block_runs(fractional, noise):
    fractional.register_modules(compensation=None)
    latents = fractional(TEXTS, latents=noise[:2], output_type="latent").images
    expected = sample_latents(fractional.transformer, noise[:2], step_sigmas(2, 3.0), encoded(fractional))
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


def test_save_and_load_round_trip(fractional, noise, tmp_path):
    expected = fractional(TEXTS, latents=noise[:2], output_type="latent").images
    fractional.save_pretrained(tmp_path)
    loaded = FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert (loaded.config.num_inference_steps, loaded.config.max_sequence_length) == (2, 6)
    assert torch.equal(loaded(TEXTS, latents=noise[:2], output_type="latent").images, expected)


@torch.no_grad()
def test_the_folder_opens_with_the_plain_pipeline_uncached(fractional, noise, tmp_path):
    fractional.save_pretrained(tmp_path)
    plain = StableDiffusion3Pipeline.from_pretrained(tmp_path)
    plain.set_progress_bar_config(disable=True)
    latents = plain(
        TEXTS,
        latents=noise[:2],
        sigmas=[1.0, 0.5],
        num_inference_steps=2,
        guidance_scale=1.0,
        max_sequence_length=6,
        output_type="latent",
    ).images
    expected = sample_latents(plain.transformer, noise[:2], step_sigmas(2, 3.0), encoded(plain))
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


def test_several_images_a_prompt_with_a_generator_each(fractional):
    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = fractional(TEXTS, num_images_per_prompt=2, generator=generators(1, 2, 3, 4), output_type="latent").images
    assert together.shape == (4, 4, 8, 8)
    for row, (text, seed) in enumerate(zip([TEXTS[0]] * 2 + [TEXTS[1]] * 2, (1, 2, 3, 4), strict=True)):
        alone = fractional(text, generator=generators(seed), output_type="latent").images
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_callbacks_see_every_step_and_may_change_the_latents(fractional, noise):
    seen = []

    def callback(pipeline, step, timestep, tensors):
        seen.append((step, float(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else {}

    latents = fractional(TEXTS, latents=noise[:2], callback_on_step_end=callback, output_type="latent").images
    assert seen == [(0, 1000.0), (1, 750.0)]
    assert not latents.any()


def test_a_call_leaves_the_transformer_untouched(fractional, noise):
    fractional(TEXTS, latents=noise[:2], output_type="latent")
    assert is_untouched(fractional)


def test_a_call_that_raised_leaves_the_transformer_untouched(fractional, noise):
    def callback(*_):
        raise KeyError("stop here")

    expected = fractional(TEXTS, latents=noise[:2], output_type="latent").images
    with pytest.raises(KeyError, match="stop here"):
        fractional(TEXTS, latents=noise[:2], callback_on_step_end=callback)
    assert is_untouched(fractional)
    assert torch.equal(fractional(TEXTS, latents=noise[:2], output_type="latent").images, expected)


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(fractional, steps):
    with pytest.raises(ValueError, match=f"num_inference_steps must be at least 1, got {steps}"):
        fractional(TEXTS, num_inference_steps=steps)
    assert is_untouched(fractional)
