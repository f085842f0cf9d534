"""Optimizers, learning-rate schedules and moving averages, each from its library."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from diffusers.optimization import get_scheduler
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from onex_distill.engine.checkpoint import sharded_like
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.ranks import Ranks, whole
from onex_distill.parameters import Params

NAMED = 3  # parameters in a message

Resting = Callable[[str], bool]  # whether an update is meant to leave the parameter of this name out


def nothing_rests(_name: str) -> bool:
    """No parameter is left out."""
    return False


class OptimizerParams(Params):
    """AdamW with gradient clipping; ``clip_norm`` is the largest gradient norm, none for no clipping.

    ``kind`` adamw is torch's fused kernel with moments in float32, adamw_8bit that of bitsandbytes, for
    whole weights.
    """

    kind: Literal["adamw", "adamw_8bit"]
    lr: PositiveFloat
    betas: tuple[NonNegativeFloat, NonNegativeFloat]
    weight_decay: NonNegativeFloat
    eps: PositiveFloat
    clip_norm: PositiveFloat | None
    warmup_steps: NonNegativeInt
    schedule: Literal["constant_with_warmup", "cosine"]


class Stepper:
    """An optimizer with its clipping and learning-rate schedule, so that an update is one call.

    It is given parameters by name, takes those that want a gradient, and ends the run when one of them has none.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], params: OptimizerParams, total_steps: int, ranks: Ranks
    ) -> None:
        self.named = {name: parameter for name, parameter in parameters if parameter.requires_grad}
        self.parameters = list(self.named.values())
        self._unseen = dict(self.named)  # those that have had no gradient yet
        self.clip_norm = params.clip_norm
        self.ranks = ranks
        check_optimizer(params, ranks.compute)
        self.optimizer = _adamw(self.parameters, params)
        self.scheduler = get_scheduler(
            params.schedule, self.optimizer, num_warmup_steps=params.warmup_steps, num_training_steps=total_steps
        )

    def step(self, loss: Tensor, resting: Resting = nothing_rests) -> float:
        """Backward, average over ranks, clip, step; return the gradient norm before clipping.

        ``loss`` is the mean over this rank's rows times ``Ranks.weight``; ``resting`` is that of ``apply``.
        """
        loss.backward()
        return self.apply(resting)

    def apply(self, resting: Resting = nothing_rests) -> float:
        """Clip and step with the gradients that are there; return their norm before clipping.

        Gradients that are not finite change nothing. ``resting`` says which parameters this update does not reach, such
        as those of blocks that a cached step skips. Raises ValueError for any other that has no gradient in the first
        update that should reach it: it would never learn.
        """
        norm = self.reduce(resting)
        self.take(norm)
        return norm

    def reduce(self, resting: Resting = nothing_rests) -> float:
        """The first half of ``apply``: average over ranks; return the norm of the gradients."""
        self._require_gradients(resting)
        self.ranks.average_gradients(self.parameters)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return float(whole(nn.utils.get_total_norm(gradients)))

    def take(self, norm: float) -> None:
        """The second half of ``apply``: clip as for gradients of this norm, which others may have a part in; step."""
        if math.isfinite(norm):
            if self.clip_norm is not None:
                nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, torch.tensor(norm))
            self.optimizer.step()
            self.scheduler.step()
        self.discard()

    def _require_gradients(self, resting: Resting) -> None:
        self._unseen = {name: parameter for name, parameter in self._unseen.items() if parameter.grad is None}
        missing = [name for name in self._unseen if not resting(name)]
        if missing:
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            raise ValueError(
                f"no gradient reaches {', '.join(missing[:NAMED])}{more} in its first update, so that it would never "
                f"learn; compute.sharding {self.ranks.compute.sharding} with mixed_precision "
                f"{self.ranks.compute.mixed_precision} loses it: choose another sharding, or fp32"
            )

    def discard(self) -> None:
        """Drop the gradients unused."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer and of its schedule."""
        return {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, sharded as the parameters are."""
        moments = state["optimizer"]["state"]
        for number, parameter in enumerate(self.parameters):
            for name, value in moments.get(number, {}).items():
                if isinstance(value, Tensor) and not isinstance(value, DTensor) and value.shape == parameter.shape:
                    moments[number][name] = sharded_like(value, parameter.data)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def check_optimizer(params: OptimizerParams, compute: ComputeParams) -> None:
    """Raise ValueError of one line when an optimizer of this kind cannot run here, or not on weights so sharded."""
    if params.kind == "adamw":
        return
    if compute.is_sharded:
        raise ValueError(
            f"optimizer adamw_8bit cannot step weights that compute.sharding {compute.sharding} splits over ranks; use "
            "adamw, or sharding ddp"
        )
    _adamw_8bit()


def _adamw(parameters: list[nn.Parameter], params: OptimizerParams) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {
        "lr": params.lr,
        "betas": params.betas,
        "weight_decay": params.weight_decay,
        "eps": params.eps,
    }
    if params.kind == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **settings)
    return _adamw_8bit()(parameters, **settings)


def _adamw_8bit() -> type[torch.optim.Optimizer]:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ValueError(
            "optimizer adamw_8bit needs the package bitsandbytes, which is not installed; install it (extra gpu), or "
            "use adamw"
        ) from error
    optimizer: type[torch.optim.Optimizer] = AdamW8bit
    return optimizer


def moving_average(module: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a module's weights."""
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
