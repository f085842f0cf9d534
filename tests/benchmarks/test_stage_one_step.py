"""The two loops of the benchmark do the same work, and it counts that work rightly."""

from functools import partial

import pytest
import torch
from diffusers import SD3Transformer2DModel

import stage_one_step as benchmark
from onex_distill.distill.stage_one.roles import FAKE_SCORE, STUDENT


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return benchmark.random_teacher(tmp_path_factory.mktemp("benchmark") / "teacher", width=48, layers=2)


@pytest.fixture
def make(teacher, tmp_path):
    """``make(name, **changes)`` is a trainer with a folder of its own."""

    def trainer(name, **changes):
        params, compute = benchmark.parameters({"batch_size": 8, **changes})
        return benchmark.make_trainer(tmp_path / name, teacher, params, compute)

    return trainer


def test_both_loops_have_the_same_losses_and_gradients(make):
    ours, published = make("ours"), make("published")
    for step in range(3):
        expected, found = benchmark.published_update(published, step), ours.update(step)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-4), name
    for role in (STUDENT, FAKE_SCORE):
        for a, b in zip(ours.networks.parameters(role), published.networks.parameters(role), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_published_order_costs_thirteen_forwards_and_ours_three_less(make):
    published, ours = make("published", gradient_checkpointing=True), make("ours")
    count = benchmark.count_forwards
    loop = benchmark.Loop(published, partial(benchmark.published_update, published), True)
    assert count(loop, 0, 8) == 13
    drawn = ours.draws.draw(0)
    guided = float((drawn.sigma <= ours.params.guidance.alpha).float().mean())
    expected = float((drawn.steps > 0).float().mean()) + 3 + 3 + 1 + guided + 1
    assert count(benchmark.Loop(ours, ours.update, False), 0, 8) == pytest.approx(expected)
    assert expected <= 10


def test_checkpointing_lowers_the_measured_peak(make):
    plain, checkpointed = make("plain"), make("checkpointed", gradient_checkpointing=True)
    peaks = [
        benchmark.peak_memory(benchmark.Loop(trainer, trainer.update, False), 0) for trainer in (plain, checkpointed)
    ]
    assert 0 < peaks[1] < peaks[0]


def test_the_state_is_measured_as_it_is_computed(make, teacher):
    with torch.device("meta"):
        config = dict(teacher.build().config)
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    computed = benchmark.computed_state(config, rank=16)
    full, shared = make("full"), make("shared", parametrization="shared_backbone")
    for trainer in (full, shared):
        trainer.update(0)
    steps = 2 * 4 * len(full.networks.parameters(STUDENT))  # AdamW counts its steps in a tensor a parameter
    assert benchmark.state_bytes(full) - steps == 36 * computed["parameters"]
    steps = 2 * 4 * len(shared.networks.parameters(STUDENT))
    frozen = 4  # float32 without autocast
    assert benchmark.state_bytes(shared) - steps == frozen * computed["parameters"] + 32 * computed["adapter"]


def test_the_published_models_have_their_published_sizes():
    for config, billions in ((benchmark.SD3_MEDIUM, 2.03), (benchmark.SD35_LARGE, 8.06)):
        with torch.device("meta"):
            count = sum(p.numel() for p in SD3Transformer2DModel(**config).parameters())
        assert count / 1e9 == pytest.approx(billions, abs=0.01)
    assert all(benchmark.computed_state(benchmark.SD3_MEDIUM, rank)["ratio"] >= 8 for rank in (16, 64))
