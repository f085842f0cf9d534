import copy

import pytest
import torch
from diffusers import SD3Transformer2DModel
from peft import PeftModel

from onex_distill.engine.randomness import seeded
from onex_distill.models.lora import AdapterState, LoraParams, add_lora, merge_lora, save_adapter
from onex_distill.models.velocity import predict_velocity
from onex_distill.pretraining.architecture import build_transformer

PARAMS = LoraParams(rank=2, alpha=4)


def perturb(adapted: PeftModel) -> None:
    """Move every adapter away from its zero start."""
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draws))


@torch.no_grad()
def test_fresh_adapters_change_nothing(transformer, prompts, noise):
    plain = predict_velocity(transformer, noise, 0.8, prompts)
    add_lora(transformer, PARAMS)
    assert torch.equal(predict_velocity(transformer, noise, 0.8, prompts), plain)


def test_adapters_alone_train_and_cover_both_streams_of_every_block(architecture):
    transformer = build_transformer(architecture.model_copy(update={"dual_attention_layers": (0, 1)}))
    adapted = add_lora(transformer, PARAMS)
    trainable = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name for name in trainable)
    for part in ("attn.to_q", "attn2.to_v", "attn.add_k_proj", "ff.net.0.proj", "ff_context.net.2"):
        assert any(f"transformer_blocks.1.{part}." in name for name in trainable), part
    assert any("transformer_blocks.3.attn.to_out.0." in name for name in trainable)


@torch.no_grad()
def test_merging_equals_the_adapted_model(transformer, prompts, noise):
    plain = predict_velocity(transformer, noise, 0.8, prompts)
    adapted = add_lora(transformer, PARAMS)
    perturb(adapted)
    expected = predict_velocity(transformer, noise, 0.8, prompts)
    assert not torch.allclose(expected, plain, atol=1e-3)
    merged = merge_lora(adapted)
    torch.testing.assert_close(predict_velocity(merged, noise, 0.8, prompts), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_merged_model_opens_with_from_pretrained(transformer, prompts, noise, tmp_path):
    names = set(transformer.state_dict())
    adapted = add_lora(transformer, PARAMS)
    perturb(adapted)
    merged = merge_lora(adapted)
    assert set(merged.state_dict()) == names
    merged.save_pretrained(tmp_path)
    loaded, info = SD3Transformer2DModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = predict_velocity(merged, noise, 0.8, prompts)
    assert torch.equal(predict_velocity(loaded, noise, 0.8, prompts), expected)


@pytest.mark.parametrize("alpha", [1.0, 8.0])
@torch.no_grad()
def test_the_update_is_scaled_by_alpha_over_rank(transformer, alpha):
    base = copy.deepcopy(transformer)
    adapted = add_lora(transformer, LoraParams(rank=2, alpha=alpha))
    perturb(adapted)
    layer = transformer.transformer_blocks[0].attn.to_q
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    merged = merge_lora(adapted).transformer_blocks[0].attn.to_q.weight
    torch.testing.assert_close(merged, base.transformer_blocks[0].attn.to_q.weight + alpha / 2 * update)


@torch.no_grad()
def test_adapter_state_round_trip(architecture, prompts, noise):
    models = []
    for _ in range(2):
        with seeded(6):
            models.append(build_transformer(architecture).eval())
    first, second = (add_lora(model, PARAMS) for model in models)
    perturb(first)
    state = AdapterState(first).state_dict()
    assert sum(t.numel() for t in state.values()) == sum(p.numel() for p in first.parameters() if p.requires_grad)
    AdapterState(second).load_state_dict(state)
    outputs = [predict_velocity(model, noise, 0.8, prompts) for model in models]
    assert torch.equal(*outputs)


@torch.no_grad()
def test_diffusers_loads_the_saved_adapter(tiny_teacher, prompts, noise, tmp_path):
    plain = predict_velocity(tiny_teacher.transformer, noise, 0.8, prompts)
    adapted = add_lora(copy.deepcopy(tiny_teacher.transformer), PARAMS)
    perturb(adapted)
    expected = predict_velocity(adapted.base_model.model, noise, 0.8, prompts)
    save_adapter(adapted, tmp_path)
    assert torch.equal(predict_velocity(adapted.base_model.model, noise, 0.8, prompts), expected)
    tiny_teacher.load_lora_weights(tmp_path, local_files_only=True)
    found = predict_velocity(tiny_teacher.transformer, noise, 0.8, prompts)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    tiny_teacher.unload_lora_weights()
    assert torch.equal(predict_velocity(tiny_teacher.transformer, noise, 0.8, prompts), plain)
