"""Transformers are counted from a few blocks, and that is what the whole would give."""

import pytest
import torch

from onex_distill.distill.planner.networks import (
    Setting,
    _count_transformer,
    transformer_activations,
    transformer_sizes,
)
from onex_distill.models.lora import LoraParams, add_lora
from onex_distill.pretraining.architecture import build_transformer
from onex_distill.storage.model_folder import ModelFolder, save_model

LORA = LoraParams(rank=4, alpha=4)
CLASS = "diffusers.SD3Transformer2DModel"


@pytest.fixture
def folder(architecture, tmp_path):
    """Eight blocks, of which three have dual attention."""
    sizes = {"num_layers": 8, "dual_attention_layers": (0, 1, 2), "attention_head_dim": 32}
    save_model(build_transformer(architecture.model_copy(update=sizes)), tmp_path / "transformer")
    return ModelFolder(path=tmp_path / "transformer", class_name=CLASS)


@pytest.mark.parametrize(
    ("checkpointing", "lora"),
    [
        (False, None),
        (True, LORA),
        pytest.param(False, LORA, marks=pytest.mark.slow),
        pytest.param(True, None, marks=pytest.mark.slow),
    ],
)
def test_a_few_blocks_tell_of_all(folder, lora, checkpointing):
    setting = Setting(64, 16, True, torch.bfloat16, checkpointing, lora)
    whole = _count_transformer(folder.path, 8, 3, setting)
    assert tuple(transformer_activations(folder, setting)) == pytest.approx(tuple(whole), rel=0.02)


def test_sizes_are_those_of_the_network_and_its_adapters(folder):
    sizes, transformer = transformer_sizes(folder, LORA), folder.build()
    assert sizes.whole == sum(parameter.numel() for parameter in transformer.parameters())
    assert sizes.block == sum(parameter.numel() for parameter in transformer.transformer_blocks[0].parameters())
    adapted = add_lora(transformer, LORA)
    assert sizes.adapters == sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


def test_rows_cost_in_proportion_and_checkpointing_saves(folder):
    setting = Setting(8, 16, False, torch.float32, False, None)
    one, two = (transformer_activations(folder, setting._replace(rows=rows)) for rows in (8, 16))
    assert two.kept == pytest.approx(2 * one.kept, rel=0.05)
    assert transformer_activations(folder, setting._replace(checkpointing=True)).training < one.training / 2
