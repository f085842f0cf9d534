import math
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from onex_distill.engine.optimisation import Stepper, check_optimizer, moving_average


@pytest.fixture
def parameter() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0, 2.0]))


def test_the_norm_before_clipping_is_returned(parameter, optimizer, ranks):
    stepper = Stepper([("w", parameter)], optimizer, total_steps=4, ranks=ranks)
    assert stepper.step((parameter * torch.tensor([30.0, 40.0])).sum()) == pytest.approx(50.0)
    assert parameter.grad is None


def test_the_gradient_is_clipped(parameter, optimizer, ranks):
    stepper = Stepper([("w", parameter)], optimizer, total_steps=4, ranks=ranks)
    stepper.step((parameter * torch.tensor([30.0, 40.0])).sum())
    first_moment = stepper.optimizer.state[parameter]["exp_avg"]
    expected = (1 - optimizer.betas[0]) * torch.tensor([0.6, 0.8])
    torch.testing.assert_close(first_moment, expected, rtol=1e-4, atol=1e-6)


def test_frozen_parameters_are_left_out(parameter, optimizer, ranks):
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    stepper = Stepper([("w", parameter), ("frozen", frozen)], optimizer, total_steps=4, ranks=ranks)
    stepper.step((parameter * frozen).sum())
    assert frozen.tolist() == [1.0, 1.0]
    assert len(stepper.parameters) == 1


def test_discarding_changes_nothing(parameter, optimizer, ranks):
    stepper = Stepper([("w", parameter)], optimizer, total_steps=4, ranks=ranks)
    parameter.sum().backward()
    stepper.discard()
    assert parameter.grad is None
    assert parameter.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(parameter, optimizer, ranks, bad):
    stepper = Stepper([("w", parameter)], optimizer, total_steps=4, ranks=ranks)
    stepper.step(parameter.sum())
    before, rate = parameter.tolist(), stepper.scheduler.get_last_lr()
    moments = stepper.optimizer.state[parameter]["exp_avg"].tolist()
    assert not math.isfinite(stepper.step((parameter * torch.tensor([bad, 1.0])).sum()))
    assert parameter.tolist() == before
    assert stepper.scheduler.get_last_lr() == rate
    assert stepper.optimizer.state[parameter]["exp_avg"].tolist() == moments
    assert parameter.grad is None


def test_the_rate_warms_up_and_decays(parameter, optimizer, ranks):
    stepper = Stepper([("w", parameter)], optimizer.model_copy(update={"warmup_steps": 2}), total_steps=6, ranks=ranks)
    rates = []
    for _ in range(6):
        rates.append(stepper.scheduler.get_last_lr()[0] / optimizer.lr)
        stepper.step(parameter.sum())
    cosine = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert rates == pytest.approx([0.0, 0.5, *cosine])


def test_the_average_follows_the_weights():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    average = moving_average(module, 0.75)
    average.update_parameters(module)
    nn.init.constant_(module.weight, 5.0)
    average.update_parameters(module)
    assert average.module.weight.item() == pytest.approx(0.75 * 1.0 + 0.25 * 5.0)


def test_eight_bits_without_their_package_are_refused_in_one_line(monkeypatch, parameter, optimizer, ranks):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    eight = optimizer.model_copy(update={"kind": "adamw_8bit"})
    with pytest.raises(ValueError, match="needs the package bitsandbytes, which is not installed") as error:
        Stepper([("w", parameter)], eight, 4, ranks)
    assert "\n" not in str(error.value)


def settings_of(stepper: Stepper) -> tuple[float, tuple[float, float], float, float]:
    (group,) = stepper.optimizer.param_groups
    return group["initial_lr"], group["betas"], group["eps"], group["weight_decay"]


def test_the_optimizer_takes_its_settings(parameter, optimizer, ranks):
    stepper = Stepper([("w", parameter)], optimizer, 4, ranks)
    assert settings_of(stepper) == (optimizer.lr, optimizer.betas, optimizer.eps, optimizer.weight_decay)


def test_eight_bits_take_the_same_settings(monkeypatch, parameter, optimizer, ranks):
    stand_in = ModuleType("bitsandbytes.optim")
    stand_in.AdamW8bit = torch.optim.AdamW
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", stand_in)
    stepper = Stepper([("w", parameter)], optimizer.model_copy(update={"kind": "adamw_8bit"}), 4, ranks)
    assert settings_of(stepper) == (optimizer.lr, optimizer.betas, optimizer.eps, optimizer.weight_decay)


@pytest.fixture
def two(optimizer, ranks) -> tuple[dict[str, nn.Parameter], Stepper]:
    named = {name: nn.Parameter(torch.ones(2)) for name in ("near", "far")}
    return named, Stepper(named.items(), optimizer, total_steps=4, ranks=ranks)


def test_a_parameter_that_no_gradient_reaches_ends_the_run_by_name(two):
    named, stepper = two
    with pytest.raises(ValueError, match="no gradient reaches far in its first update") as error:
        stepper.step(named["near"].sum())
    assert "\n" not in str(error.value)
    assert named["near"].tolist() == [1.0, 1.0]


def test_a_parameter_may_rest_until_an_update_should_reach_it(two):
    named, stepper = two
    stepper.step(named["near"].sum(), resting=lambda name: name == "far")
    with pytest.raises(ValueError, match="no gradient reaches far in its first update"):
        stepper.step(named["near"].sum())


def test_a_parameter_that_has_had_a_gradient_may_miss_later_ones(two):
    named, stepper = two
    stepper.step(named["near"].sum() + named["far"].sum())
    assert stepper.step(named["near"].sum()) == pytest.approx(2**0.5)


def test_many_parameters_without_a_gradient_are_counted(optimizer, ranks):
    named = {f"block.{number}": nn.Parameter(torch.ones(1)) for number in range(6)}
    stepper = Stepper(named.items(), optimizer, total_steps=4, ranks=ranks)
    with pytest.raises(ValueError, match=r"reaches block.1, block.2, block.3 and 2 more"):
        stepper.step(named["block.0"].sum())


def test_nothing_is_clipped_without_a_norm(optimizer, ranks):
    parameter = nn.Parameter(torch.zeros(2))
    stepper = Stepper([("p", parameter)], optimizer.model_copy(update={"clip_norm": None}), 10, ranks)
    seen = []
    stepper.optimizer.step = lambda: seen.append(parameter.grad.clone())
    assert stepper.step((parameter * torch.tensor([30.0, 40.0])).sum()) == pytest.approx(50.0)
    assert seen[0].tolist() == [30.0, 40.0]


def test_eight_bits_do_not_step_sharded_weights(optimizer, compute):
    eight = optimizer.model_copy(update={"kind": "adamw_8bit"})
    sharded = compute.model_copy(update={"processes": 2, "sharding": "fsdp2"})
    with pytest.raises(ValueError, match=r"adamw_8bit cannot step weights that compute\.sharding fsdp2") as error:
        check_optimizer(eight, sharded)
    assert "\n" not in str(error.value)
    check_optimizer(optimizer, sharded)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_eight_bits_learn_as_thirty_two_do_and_go_on_from_their_state(optimizer, ranks, device):
    pytest.importorskip("bitsandbytes")
    target = torch.randn(64, 128, generator=torch.Generator().manual_seed(3)).to(device)  # of 4096 elements or more

    def learned(kind: str, split: bool) -> torch.Tensor:
        params = optimizer.model_copy(update={"kind": kind, "lr": 0.05, "clip_norm": 1e3})
        weight = nn.Parameter(torch.zeros(64, 128, device=device))
        stepper = Stepper([("w", weight)], params, total_steps=60, ranks=ranks)
        for step in range(60):
            if split and step == 30:
                state = stepper.state_dict()
                stepper = Stepper([("w", weight)], params, total_steps=60, ranks=ranks)
                stepper.load_state_dict(state)
            stepper.step((weight - target).square().sum())
        return weight.detach()

    whole, interrupted = learned("adamw_8bit", split=False), learned("adamw_8bit", split=True)
    assert torch.equal(whole, interrupted)
    reference = learned("adamw", split=False)
    assert float((whole - reference).norm() / reference.norm()) < 0.05
