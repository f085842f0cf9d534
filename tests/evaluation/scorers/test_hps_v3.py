"""HPSv3 on a tiny checkpoint in its original names, against its formulas in float64."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import gelu, layer_norm, relu, silu

from onex_distill.evaluation.scorers.base import load_network
from onex_distill.evaluation.scorers.clip import MEAN, STD
from onex_distill.evaluation.scorers.hps_v3 import HpsV3Params
from onex_distill.evaluation.scorers.weights import MissingScorer
from photographs import photographs
from tiny_scorers import local

CPU = torch.device("cpu")
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
ASKED = "system You are a helpful assistant . user Rate it : cat rating cup END"
WORDS = ["[UNK]", *dict.fromkeys(ASKED.split())]
TOKENS = {word: place for place, word in enumerate((*WORDS, *SPECIAL, "<|Reward|>"))}
V, VH, D, H, KV, HD, DEPTH = 32, 2, 48, 4, 2, 12, 2
"""Widths and heads: of the vision, of the text, heads of keys, width of a head; layers of each."""
SOURCE = 'INSTRUCTION = """Rate it : {text_prompt}\n"""\nprompt_with_special_token = """rating <|Reward|> END"""\n'


def random_state():
    generator = torch.Generator().manual_seed(3)
    state = {}

    def linear(name, wide, narrow, bias=True):
        state[f"{name}.weight"] = torch.randn(narrow, wide, generator=generator) * 1.5 * wide**-0.5
        if bias:
            state[f"{name}.bias"] = 0.1 * torch.randn(narrow, generator=generator)

    def norm(name, width, bias=True):
        state[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=generator)
        if bias:
            state[f"{name}.bias"] = 0.1 * torch.randn(width, generator=generator)

    state["visual.patch_embed.proj.weight"] = 0.05 * torch.randn(V, 3, 2, 14, 14, generator=generator)
    for index in range(DEPTH):
        block = f"visual.blocks.{index}"
        norm(f"{block}.norm1", V)
        norm(f"{block}.norm2", V)
        for name, wide, narrow in (
            ("attn.qkv", V, 3 * V),
            ("attn.proj", V, V),
            ("mlp.fc1", V, 4 * V),
            ("mlp.fc2", 4 * V, V),
        ):
            linear(f"{block}.{name}", wide, narrow)
        layer = f"model.layers.{index}"
        norm(f"{layer}.input_layernorm", D, False)
        norm(f"{layer}.post_attention_layernorm", D, False)
        for name, narrow in (("q", H * HD), ("k", KV * HD), ("v", KV * HD)):
            linear(f"{layer}.self_attn.{name}_proj", D, narrow)
        linear(f"{layer}.self_attn.o_proj", H * HD, D, False)
        for name, wide, narrow in (("gate", D, 96), ("up", D, 96), ("down", 96, D)):
            linear(f"{layer}.mlp.{name}_proj", wide, narrow, False)
    norm("visual.merger.ln_q", V)
    linear("visual.merger.mlp.0", 4 * V, 4 * V)
    linear("visual.merger.mlp.2", 4 * V, D)
    norm("model.norm", D, False)
    state["model.embed_tokens.weight"] = torch.randn(len(TOKENS), D, generator=generator)
    linear("lm_head", D, len(TOKENS), False)
    for name, wide, narrow in (("0", D, 1024), ("3", 1024, 16), ("5", 16, 2)):
        linear(f"rm_head.{name}", wide, narrow)
    return state


@pytest.fixture
def written(tmp_path):
    state = random_state()
    save_file(state, tmp_path / "HPSv3.safetensors")
    text = {"hidden_size": D, "intermediate_size": 96, "num_hidden_layers": DEPTH, "num_attention_heads": H}
    text |= {
        "num_key_value_heads": KV,
        "vocab_size": 999,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "hidden_act": "silu",
    }
    vision = {"depth": DEPTH, "embed_dim": V, "num_heads": VH, "mlp_ratio": 4, "hidden_size": D, "patch_size": 14}
    config = {"model_type": "qwen2_vl", **text, "vision_config": vision, "image_token_id": TOKENS["<|image_pad|>"]}
    config |= {"rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]}, "bos_token_id": 1, "eos_token_id": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "data_collator_qwen.py").write_text(SOURCE)
    params = HpsV3Params(
        name="hps_v3",
        weights=local(tmp_path, "HPSv3.safetensors"),
        architecture=local(tmp_path, "config.json", "tokenizer.json"),
        question=local(tmp_path, "data_collator_qwen.py"),
        on_cpu=True,
    )
    return {name: one.double() for name, one in state.items()}, params


def linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0)


def norm(state, name, x):
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def rms(state, name, x):
    return state[f"{name}.weight"] * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def turned(x, angles):
    """Pairs (i, i + half) of (L, heads, width) turned by angles (L, half)."""
    a, b = x.chunk(2, -1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attend(q, k, v, causal):
    logits = torch.einsum("ihd,jhd->hij", q, k) / q.shape[-1] ** 0.5
    if causal:
        logits = logits.masked_fill(torch.ones(logits.shape[1:]).triu(1).bool(), -torch.inf)
    return torch.einsum("hij,jhd->ihd", logits.softmax(-1), v).flatten(1)


def seen(state, image, width, height):
    """The image's tokens: patches of 14 in groups of 2 x 2, each turned by its row and its column."""
    pixels = torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BICUBIC))).double() / 255
    pixels = ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)
    rows, columns = height // 14, width // 14
    places = [
        (2 * i + a, 2 * j + b) for i in range(rows // 2) for j in range(columns // 2) for a in (0, 1) for b in (0, 1)
    ]
    patches = torch.stack([pixels[:, 14 * i : 14 * i + 14, 14 * j : 14 * j + 14] for i, j in places])
    x = torch.einsum("pcij,vctij->pv", patches, state["visual.patch_embed.proj.weight"])
    turns = 10_000.0 ** -(torch.arange(0, V // VH // 2, 2).double() / (V // VH // 2))
    grid = torch.tensor(places).double()
    angles = torch.cat([grid[:, :1] * turns, grid[:, 1:] * turns], 1)
    for index in range(DEPTH):
        block = f"visual.blocks.{index}"
        q, k, v = (
            linear(state, f"{block}.attn.qkv", norm(state, f"{block}.norm1", x)).unflatten(1, (3, VH, -1)).unbind(1)
        )
        x = x + linear(state, f"{block}.attn.proj", attend(turned(q, angles), turned(k, angles), v, False))
        hidden = linear(state, f"{block}.mlp.fc1", norm(state, f"{block}.norm2", x))
        x = x + linear(state, f"{block}.mlp.fc2", hidden * torch.sigmoid(1.702 * hidden))
    merged = norm(state, "visual.merger.ln_q", x).reshape(-1, 4 * V)
    return linear(state, "visual.merger.mlp.2", gelu(linear(state, "visual.merger.mlp.0", merged)))


def rating(state, image, caption, width, height):
    tokens = seen(state, image, width, height)
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    user = f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Rate it : {caption}\nrating <|Reward|> END"
    words = re.findall(r"<\|\w+\|>|\w+|[^\w\s<]+", f"{system}{user}<|im_end|>\n<|im_start|>assistant\n")
    table = state["model.embed_tokens.weight"]
    parts = [tokens if word == "<|image_pad|>" else table[TOKENS[word]][None] for word in words]
    x = torch.cat(parts)
    place = sum(len(part) for part in parts[: words.index("<|Reward|>")])
    turns = 1e6 ** -(torch.arange(0, HD, 2).double() / HD)
    angles = torch.arange(len(x))[:, None] * turns
    for index in range(DEPTH):
        layer = f"model.layers.{index}"
        read = rms(state, f"{layer}.input_layernorm", x)
        q, k, v = (linear(state, f"{layer}.self_attn.{one}_proj", read).unflatten(1, (-1, HD)) for one in "qkv")
        k, v = (one.repeat_interleave(H // KV, 1) for one in (turned(k, angles), v))
        x = x + linear(state, f"{layer}.self_attn.o_proj", attend(turned(q, angles), k, v, True))
        read = rms(state, f"{layer}.post_attention_layernorm", x)
        gate, up = (linear(state, f"{layer}.mlp.{one}_proj", read) for one in ("gate", "up"))
        x = x + linear(state, f"{layer}.mlp.down_proj", silu(gate) * up)
    hidden = rms(state, "model.norm", x)[place]
    for name in ("0", "3"):
        hidden = relu(linear(state, f"rm_head.{name}", hidden))
    return linear(state, "rm_head.5", hidden)[0]


def test_the_score_is_the_mean_that_the_original_gives(written, tmp_path):
    state, params = written
    images = [photographs()["chelsea.png"], photographs()["astronaut.png"]]  # 451 x 300 and 512 x 512
    scores = load_network(params, tmp_path, CPU).features(images, ["cat", "cup"])["score"]
    expected = [rating(state, images[0], "cat", 560, 392), rating(state, images[1], "cup", 448, 448)]
    torch.testing.assert_close(scores.double(), torch.stack(expected), atol=2e-4, rtol=2e-4)
    assert abs(float(expected[0] - expected[1])) > 0.01


def test_a_cpu_is_refused_unless_asked_for(written, tmp_path):
    missing = load_network(written[1].model_copy(update={"on_cpu": False}), tmp_path, CPU)
    assert isinstance(missing, MissingScorer)
    assert "hps_v3 runs on a GPU only" in missing.reason


def test_other_weights_and_texts_are_refused(written, tmp_path):
    params = written[1]
    (tmp_path / "data_collator_qwen.py").write_text("INSTRUCTION = 'a'")
    with pytest.raises(ValueError, match="does not hold HPSv3's INSTRUCTION"):
        load_network(params, tmp_path, CPU)
    save_file({"a": torch.zeros(1)}, tmp_path / "HPSv3.safetensors")
    with pytest.raises(ValueError, match=r"has no rm_head\.0\.weight"):
        load_network(params, tmp_path, CPU)
