"""ImageReward's formulas in float64 on tensors in the names of its own checkpoint.

Shapes: N images, L tokens, D width.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, softmax

HEAD_WIDTH = 64

State = dict[str, Tensor]


def reward(state: State, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """(N,) for standardised pixels (N, 3, S, S), tokens int (N, L) and their mask (N, L)."""
    state = {name: value.double() for name, value in state.items()}
    seen = _vision(state, pixels.double())
    first = _text(state, tokens, mask, seen)[:, 0]
    for index in (0, 2, 4, 6, 7):
        first = _linear(state, f"mlp.layers.{index}", first)
    return (first[:, 0] - 0.16717362830052426) / 1.0333394966054072


def _vision(state: State, pixels: Tensor) -> Tensor:
    stem = "blip.visual_encoder"
    weight = state[f"{stem}.patch_embed.proj.weight"]
    x = (
        conv2d(pixels, weight, state[f"{stem}.patch_embed.proj.bias"], stride=weight.shape[-1])
        .flatten(2)
        .transpose(1, 2)
    )
    x = torch.cat([state[f"{stem}.cls_token"].expand(len(x), -1, -1), x], 1) + state[f"{stem}.pos_embed"]
    for index in range(2):
        block = f"{stem}.blocks.{index}"
        queries, keys, values = _linear(state, f"{block}.attn.qkv", _norm(state, f"{block}.norm1", x, 1e-6)).chunk(
            3, -1
        )
        x = x + _linear(state, f"{block}.attn.proj", _attend(queries, keys, values))
        hidden = gelu(_linear(state, f"{block}.mlp.fc1", _norm(state, f"{block}.norm2", x, 1e-6)))
        x = x + _linear(state, f"{block}.mlp.fc2", hidden)
    return _norm(state, f"{stem}.norm", x, 1e-6)


def _text(state: State, tokens: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
    stem = "blip.text_encoder"
    words = state[f"{stem}.embeddings.word_embeddings.weight"][tokens]
    places = state[f"{stem}.embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = _norm(state, f"{stem}.embeddings.LayerNorm", words + places, 1e-12)
    for index in range(2):
        layer = f"{stem}.encoder.layer.{index}"
        x = _read(state, f"{layer}.attention", x, x, mask)
        x = _read(state, f"{layer}.crossattention", x, seen, torch.ones(seen.shape[:2]))
        hidden = gelu(_linear(state, f"{layer}.intermediate.dense", x))
        x = _norm(state, f"{layer}.output.LayerNorm", _linear(state, f"{layer}.output.dense", hidden) + x, 1e-12)
    return x


def _read(state: State, name: str, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    queries = _linear(state, f"{name}.self.query", x)
    keys, values = (_linear(state, f"{name}.self.{part}", source) for part in ("key", "value"))
    attended = _linear(state, f"{name}.output.dense", _attend(queries, keys, values, mask))
    return _norm(state, f"{name}.output.LayerNorm", attended + x, 1e-12)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    heads = [part.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for part in (queries, keys, values)]
    logits = heads[0] @ heads[1].transpose(-1, -2) / HEAD_WIDTH**0.5
    if mask is not None:
        logits = logits.masked_fill(mask[:, None, None] == 0, -torch.inf)
    return (softmax(logits, -1) @ heads[2]).transpose(1, 2).flatten(2)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def random_state(words: int, vision_width: int = 128, text_width: int = 128) -> State:
    """A tiny checkpoint with all names of ImageReward.pt."""
    generator = torch.Generator().manual_seed(7)
    state: State = {}

    def add(name: str, *shape: int, scale: float | None = None) -> None:
        state[name] = torch.randn(shape, generator=generator) * (scale or shape[-1] ** -0.5)

    def linear(name: str, width_in: int, width_out: int) -> None:
        add(f"{name}.weight", width_out, width_in)
        add(f"{name}.bias", width_out, scale=0.1)

    def norm(name: str, width: int) -> None:
        add(f"{name}.weight", width, scale=0.1)
        state[f"{name}.weight"] += 1
        add(f"{name}.bias", width, scale=0.1)

    stem, width = "blip.visual_encoder", vision_width
    add(f"{stem}.cls_token", 1, 1, width)
    add(f"{stem}.pos_embed", 1, 1 + 7 * 7, width)
    add(f"{stem}.patch_embed.proj.weight", width, 3, 32, 32, scale=0.02)
    add(f"{stem}.patch_embed.proj.bias", width, scale=0.1)
    norm(f"{stem}.norm", width)
    for index in range(2):
        block = f"{stem}.blocks.{index}"
        norm(f"{block}.norm1", width)
        norm(f"{block}.norm2", width)
        linear(f"{block}.attn.qkv", width, 3 * width)
        linear(f"{block}.attn.proj", width, width)
        linear(f"{block}.mlp.fc1", width, 4 * width)
        linear(f"{block}.mlp.fc2", 4 * width, width)
    stem, width = "blip.text_encoder", text_width
    add(f"{stem}.embeddings.word_embeddings.weight", words, width)
    add(f"{stem}.embeddings.position_embeddings.weight", 64, width)
    state[f"{stem}.embeddings.position_ids"] = torch.arange(64)[None]
    norm(f"{stem}.embeddings.LayerNorm", width)
    for index in range(2):
        layer = f"{stem}.encoder.layer.{index}"
        for kind, source in (("attention", width), ("crossattention", vision_width)):
            linear(f"{layer}.{kind}.self.query", width, width)
            linear(f"{layer}.{kind}.self.key", source, width)
            linear(f"{layer}.{kind}.self.value", source, width)
            linear(f"{layer}.{kind}.output.dense", width, width)
            norm(f"{layer}.{kind}.output.LayerNorm", width)
        linear(f"{layer}.intermediate.dense", width, 4 * width)
        linear(f"{layer}.output.dense", 4 * width, width)
        norm(f"{layer}.output.LayerNorm", width)
    for index, (wide, narrow) in {0: (width, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}.items():
        linear(f"mlp.layers.{index}", wide, narrow)
    return state
