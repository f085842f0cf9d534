import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from onex_distill.engine.randomness import seeded
from onex_distill.pretraining import architecture as tiny
from onex_distill.pretraining.acceptance import measure_teacher
from onex_distill.shapes.captions import all_captions
from onex_distill.shapes.networks import ShapesReader

IMAGES = 6
SIZES = {
    "latent_size": 8,
    "latent_channels": 4,
    "autoencoder_channels": (8, 8, 8),
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "patch_size": 2,
    "qk_norm": None,
    "dual_attention_layers": (),
    "clip_dim": 8,
    "t5_dim": 16,
    "text_layers": 1,
    "max_tokens": 10,
    "shift": 3.0,
}


class Constant:
    """A reader that sees the same scene in every image."""

    def read(self, images):
        return {
            name: torch.zeros(len(images), dtype=torch.int64)
            for name in ("colour", "shape", "fill", "background", "position", "size")
        }


@pytest.fixture(scope="module")
def captions():
    return all_captions()


@pytest.fixture(scope="module")
def teacher(captions):
    params = tiny.ArchitectureParams(**SIZES)
    words = sorted({word for text in captions["text"] for word in text.split()})
    tokenizer, tokenizer_2, tokenizer_3 = tiny.build_tokenizers(words, params.max_tokens)
    with seeded(0):
        text_encoder, text_encoder_2, text_encoder_3 = tiny.build_text_encoders(params, tokenizer, tokenizer_3)
        transformer, vae = tiny.build_transformer(params), tiny.build_autoencoder(params)
    vae.register_to_config(scaling_factor=1.0, shift_factor=0.0)
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        vae=vae.eval(),
        scheduler=tiny.build_scheduler(params),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        text_encoder_3=text_encoder_3,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        tokenizer_3=tokenizer_3,
    )


@pytest.fixture(scope="module")
def reader():
    with seeded(1):
        return ShapesReader(channels=(8, 8, 8), feature_dim=8).eval()


def measure(teacher, evaluator, captions, **changes):
    settings = {"seed": 0, "images": IMAGES, "batch_size": 4, "num_inference_steps": 2, "guidance_scale": 4.0}
    return measure_teacher(teacher, evaluator, evaluator, captions, **(settings | changes))


def pixels(grid, row):
    """One row of the grid as bytes; a row is 96 pixels and a border of 2."""
    return grid.crop((0, 98 * row, grid.width, 98 * (row + 1))).tobytes()


def test_the_report_repeats_for_its_seed_and_ignores_the_batch_size(teacher, reader, captions):
    first, again = measure(teacher, reader, captions), measure(teacher, reader, captions, batch_size=6)
    assert first[0] == again[0]
    assert measure(teacher, reader, captions, seed=1)[1].tobytes() != first[1].tobytes()


def test_guidance_of_scale_one_shows_the_unguided_images(teacher, reader, captions):
    report, grid = measure(teacher, reader, captions, guidance_scale=1.0)
    assert report["guided"] == report["unguided"]
    assert pixels(grid, 2) == pixels(grid, 3)


def test_the_grid_has_four_different_rows(teacher, reader, captions):
    _, grid = measure(teacher, reader, captions)
    assert grid.size == (98 * IMAGES + 2, 98 * 4 + 2)
    assert len({pixels(grid, row) for row in range(4)}) == 4


def test_a_blind_reader_is_right_as_often_as_chance(teacher, captions):
    report, _ = measure(teacher, Constant(), captions, images=32, num_inference_steps=1, batch_size=32)
    assert report["evaluator_accuracy"]["colour"] == pytest.approx(1 / 8, abs=0.1)
    assert report["evaluator_accuracy"]["shape"] == pytest.approx(1 / 4, abs=0.13)
    assert report["evaluator_accuracy"]["all_named"] == pytest.approx(1 / 96, abs=0.05)
    assert report["guided"]["entropy"]["size"] == pytest.approx(0, abs=1e-6)
