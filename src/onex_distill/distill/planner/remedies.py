"""Which settings would make a training fit that does not."""

from collections.abc import Callable
from typing import Any, NamedTuple

from onex_distill.distill.planner.needs import Need
from onex_distill.distill.planner.resources import gib
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.optimisation import OptimizerParams
from onex_distill.parameters import Params


class Plan(NamedTuple):
    """A training's parameters, and where it runs."""

    params: Params
    compute: ComputeParams


NeedOf = Callable[[Any, ComputeParams], Need]


def remedy(need_of: NeedOf, params: Params, compute: ComputeParams, memory: int) -> str:
    """What a refusal advises: settings with which the training fits into ``memory``, the gentlest first.

    They are put on one after the other until it does. ``need_of`` plans the training for other parameters and places.

    Args:
        need_of: Plans the training for other parameters and places.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        memory: Bytes per rank.

    Returns:
        One sentence for the message.
    """
    plan, names = Plan(params, compute), []
    for name, change in REMEDIES.items():
        changed = change(plan)
        if changed == plan:
            continue
        plan = changed
        names.append(name)
        need = need_of(plan.params, plan.compute)
        if need.memory <= memory:
            return f"it fits, in {gib(need.memory):.1f} GiB, with {', '.join(names)}"
    return (
        "no setting makes it fit on ranks of this size; take larger ones, or more of them with compute.sharding fsdp2"
    )


def _with(plan: Plan, **changes: Any) -> Plan:
    """The plan with those parameters that it has."""
    known = {name: value for name, value in changes.items() if name in type(plan.params).model_fields}
    return plan._replace(params=plan.params.model_copy(update=known))


def _sharded(plan: Plan) -> Plan:
    if plan.compute.ranks == 1:
        return plan
    return plan._replace(compute=plan.compute.model_copy(update={"sharding": "fsdp2"}))


def _in_8_bit(plan: Plan) -> Plan:
    if plan.compute.is_sharded:
        return plan  # for whole weights alone
    optimizers = {name: value for name, value in dict(plan.params).items() if isinstance(value, OptimizerParams)}
    return _with(plan, **{name: value.model_copy(update={"kind": "adamw_8bit"}) for name, value in optimizers.items()})


REMEDIES: dict[str, Callable[[Plan], Plan]] = {
    "gradient_checkpointing true": lambda plan: _with(plan, gradient_checkpointing=True),
    "micro_batch_size 1": lambda plan: _with(plan, micro_batch_size=1),
    "decoder_precision bf16": lambda plan: _with(plan, decoder_precision="bf16"),
    "compute.sharding fsdp2": _sharded,
    "optimizers of kind adamw_8bit": _in_8_bit,
    "parametrization shared_backbone": lambda plan: _with(plan, parametrization="shared_backbone"),
}
