"""The small checkpoints that stand for the published ones, and the true shapes that memory is planned from."""

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from onex_distill.models.teacher import TeacherFolder
from published import write_checkpoint
from published_models import MODELS, write_configs

PARAMETERS = {"sd3_medium": 2_028_328_000, "sd35_medium": 2_243_171_520, "sd35_large": 8_056_627_520}
WORDS = ["a", "cat", "on", "the", "table"]


@pytest.mark.parametrize("model", MODELS)
def test_the_configurations_are_those_of_the_published_sizes(tmp_path, model):
    teacher = TeacherFolder(path=write_configs(model, tmp_path)).check()
    transformer, autoencoder = teacher.transformer.build(), teacher.autoencoder.build()
    assert sum(parameter.numel() for parameter in transformer.parameters()) == PARAMETERS[model]
    assert sum(parameter.numel() for parameter in autoencoder.parameters()) == 83_819_683
    assert (teacher.shift, teacher.clip_tokens) == (3.0, 77)


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_opens_as_a_pipeline_that_makes_images(tmp_path, model):
    folder = write_checkpoint(model, tmp_path / "teacher", WORDS, (None, "fp16"))
    assert list(folder.glob("transformer/diffusion_pytorch_model-00001-of-*.safetensors"))
    assert (folder / "transformer/diffusion_pytorch_model.safetensors.index.json").is_file()
    assert list(folder.glob("transformer/diffusion_pytorch_model.fp16*.safetensors"))
    TeacherFolder(path=folder).check()
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32)
    assert pipeline.tokenizer("a cat").input_ids[1:-1] == [
        pipeline.tokenizer.get_vocab()["a</w>"],
        pipeline.tokenizer.get_vocab()["cat</w>"],
    ]
    assert pipeline.tokenizer.model_max_length == 77
    assert pipeline.tokenizer_2.pad_token_id == pipeline.tokenizer_2.get_vocab()["!"]
    assert pipeline.tokenizer_3("a cat").input_ids[-1] == pipeline.tokenizer_3.eos_token_id == 1
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a cat on the table", num_inference_steps=1, max_sequence_length=16, output_type="pt").images
    assert image.shape == (1, 3, 64, 64)
    assert torch.isfinite(image).all()
