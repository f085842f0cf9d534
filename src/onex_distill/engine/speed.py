"""Speed without another result: compiled transformer blocks, and the kernel that computes attention.

Both serve training and sampling by ``ComputeParams``, and any diffusers pipeline by hand::

    compile_blocks(pipeline.transformer)
    with attention("flash"):
        pipeline(...)
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Literal

import torch
from diffusers import SD3Transformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from onex_distill.engine.compute import ComputeParams

Attention = Literal["sdpa", "flash", "cudnn"]

FIRST = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
FUSED_CAPABILITY = (8, 0)  # of CUDA devices that have flash and cudnn attention


def compile_blocks(transformer: SD3Transformer2DModel) -> SD3Transformer2DModel:
    """Compile every block in place, when it first runs; classes and names in the state dict stay as they are."""
    for block in transformer.transformer_blocks:
        block.compile()
    return transformer


def attention(name: Attention) -> AbstractContextManager[None]:
    """Inside the block, attention is computed by the named kernel; ``sdpa`` leaves the choice to torch.

    What the kernel cannot compute, such as the autoencoder's one head of 512 channels, falls to the others;
    ``check_speed`` has made sure that the transformer's own attention does not.
    """
    if name == "sdpa":
        return nullcontext()
    others = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    context: AbstractContextManager[None] = sdpa_kernel([FIRST[name], *others], set_priority=True)
    return context


def check_speed(compute: ComputeParams) -> None:
    """Raise ValueError of one line when this machine lacks what ``compile`` or ``attention`` asks for."""
    device = torch.device("cpu")
    if compute.device != "cpu" and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator() or device
    if compute.attention != "sdpa":
        _check_attention(compute, device)
    if compute.compile == "blocks":
        _check_compiler(device)


def _check_attention(compute: ComputeParams, device: torch.device) -> None:
    name, remedy = compute.attention, "use compute.attention sdpa"
    if device.type != "cuda":
        if name == "flash" and device.type == "cpu":
            return  # torch has a flash kernel for the CPU, in every precision
        raise ValueError(
            f"compute.attention {name} needs a CUDA device and this machine runs on {device.type}; {remedy}"
        )
    if compute.mixed_precision != "bf16":
        raise ValueError(
            f"compute.attention {name} computes in half precision alone; set mixed_precision bf16, or {remedy}"
        )
    if torch.cuda.get_device_capability(device) < FUSED_CAPABILITY:
        raise ValueError(f"compute.attention {name} is not made for {torch.cuda.get_device_name(device)}; {remedy}")


@cache
def _check_compiler(device: torch.device) -> None:
    try:
        torch.compile(_probe)(torch.zeros(2, device=device))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"compute.compile blocks: torch.compile does not work here ({reason}); install a C++ compiler, or set none"
        ) from error


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
