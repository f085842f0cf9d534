"""Bytes of tensors, counted in a forward and a backward that compute nothing.

The code that will train runs on fake tensors, which have shapes and types and no contents, while every storage is
followed from its birth to its end. What checkpointing runs again, what autocast casts, and what fused attention keeps
are counted because they happen.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Activations(NamedTuple):
    """Bytes beside the weights.

    ``kept`` is what the graph holds between forward and backward, ``training`` the most that is alive at once in the
    two, without gradients of weights, ``first`` the same with those gradients as they arise, and ``inference`` the most
    in a forward without gradient.
    """

    kept: int
    training: int
    first: int
    inference: int

    def __add__(self, other: object) -> "Activations":
        if not isinstance(other, Activations):
            return NotImplemented
        return Activations(*(a + b for a, b in zip(self, other, strict=True)))

    def __sub__(self, other: "Activations") -> "Activations":
        return Activations(*(a - b for a, b in zip(self, other, strict=True)))

    def times(self, count: int) -> "Activations":
        """So many of them."""
        return Activations(*(count * part for part in self))


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operations inside the block have made and that are still there; the most so far.

    Storages of ``known`` tensors are nobody's. ``most_with_gradients`` counts on those that ``drop`` has taken away.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.most = self.dropped = self.most_with_gradients = 0
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self.most = max(self.most, self.now)
        self.most_with_gradients = max(self.most_with_gradients, self.now + self.dropped)
        return result

    def drop(self, parameter: Tensor) -> None:
        """Take a weight's gradient away as it has come, and remember its bytes."""
        if parameter.grad is not None:
            self.dropped += parameter.grad.nbytes
            parameter.grad = None

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


@contextmanager
def without_contents(*modules: nn.Module) -> Iterator[None]:
    """Tensors made inside have no contents and take no memory, and so have the weights of modules on the meta device.

    A meta tensor would do, if autocast knew it: these are taken for tensors of the CPU.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in (part for whole in modules for part in whole.modules()):
            for name, parameter in module.named_parameters(recurse=False):
                fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                module.register_parameter(name, nn.Parameter(fake, parameter.requires_grad))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
        yield


def count(
    module: nn.Module, inputs: Iterable[Tensor], forward: Callable[[], Tensor], bf16: bool, backward: bool = True
) -> Activations:
    """Activations of ``forward``, which calls ``module`` on ``inputs``; to be called inside ``without_contents``.

    ``bf16`` is autocast, around the forward as in training. Without ``backward`` only inference is counted.

    Args:
        module: The network, without contents.
        inputs: What the forward reads.
        forward: Calls ``module`` on ``inputs``.
        bf16: Autocast the forward.
        backward: Count a training step as well as inference.

    Returns:
        Bytes kept, the most at once, and the most of inference.
    """
    known = [*module.parameters(), *module.buffers(), *inputs]
    if not backward:
        with LiveBytes(known) as live, torch.no_grad(), _autocast(bf16):
            forward()
        return Activations(0, 0, 0, live.most)
    with LiveBytes(known) as live:
        handles = [p.register_post_accumulate_grad_hook(live.drop) for p in module.parameters() if p.requires_grad]
        with _autocast(bf16):
            output = forward()
        kept = live.now
        if output.requires_grad:
            output.float().sum().backward()
    for handle in handles:
        handle.remove()
    for tensor in inputs:
        tensor.grad = None
    inference = count(module, inputs, forward, bf16, backward=False).inference
    return Activations(kept, live.most, live.most_with_gradients, inference)


def _autocast(enabled: bool) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if enabled else nullcontext()
