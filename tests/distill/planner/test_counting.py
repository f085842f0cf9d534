"""Bytes are followed from birth to end, in tensors that have no contents."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from onex_distill.distill.planner.counting import Activations, LiveBytes, count, without_contents

ROWS, WIDTH = 1024, 64
TENSOR = ROWS * WIDTH * 4


def layers(number):
    with torch.device("meta"):
        return nn.Sequential(*(part for _ in range(number) for part in (nn.Linear(WIDTH, WIDTH), nn.Tanh())))


def counted(module, forward, bf16=False):
    with without_contents(module):
        x = torch.empty(ROWS, WIDTH)
        return count(module, (x,), lambda: forward(x), bf16)


def test_a_layer_keeps_what_it_gives_and_not_what_it_was_given():
    module = layers(1)
    result = counted(module, module)
    assert result.kept == TENSOR  # tanh keeps its result; the layer's input is the caller's
    assert result.inference == 2 * TENSOR


def test_every_layer_adds_its_own():
    kept = [counted(module, module).kept for module in map(layers, (1, 2, 5))]
    assert kept == [TENSOR, 2 * TENSOR, 5 * TENSOR]


def test_checkpointing_keeps_the_inputs_of_parts_and_makes_the_rest_again():
    module, plain = layers(8), layers(8)

    def parts(x):
        for start in range(0, 16, 4):
            x = checkpoint(module[start : start + 4], x, use_reentrant=False)
        return x

    kept, whole = counted(module, parts), counted(plain, plain)
    assert kept.kept == 4 * TENSOR  # four parts: their inputs but the first, and the result
    assert whole.kept == 8 * TENSOR
    assert kept.training < whole.training


def test_gradients_count_where_they_arise():
    module, gradients = layers(8), 8 * (WIDTH * WIDTH + WIDTH) * 4
    with without_contents(module):
        x = torch.empty(1, WIDTH)
        result = count(module, (x,), lambda: module(x), bf16=False)
    assert result.first == pytest.approx(gradients, rel=0.05)
    assert result.training < gradients / 4


def test_autocast_halves_what_is_kept_and_casts_weights():
    module, plain = layers(2), layers(2)
    half, full = counted(module, module, bf16=True), counted(plain, plain)
    casts = 2 * (WIDTH * WIDTH + WIDTH) * 2
    assert half.kept == pytest.approx(full.kept / 2 + TENSOR / 2, abs=casts)  # and the input, cast


def test_fused_attention_keeps_no_map():
    tokens = 512
    with without_contents():
        q = torch.empty(1, 4, tokens, 16, requires_grad=True)
        result = count(nn.Module(), (q,), lambda: nn.functional.scaled_dot_product_attention(q, q, q), bf16=False)
    assert result.training < 4 * tokens * tokens * 4


def test_real_tensors_are_followed_too():
    known = torch.zeros(10)
    with LiveBytes([known]) as live:
        known.add_(1)
        made = torch.zeros(1000)
        gone = made * 2
        del gone
        view = made.view(10, 100)
    assert (live.now, live.most) == (4000, 8000)
    del made, view
    assert live.now == 0


def test_activations_add_up():
    assert Activations(1, 2, 3, 4) + Activations(1, 1, 1, 1).times(2) - Activations(0, 1, 2, 3) == (3, 3, 3, 3)
