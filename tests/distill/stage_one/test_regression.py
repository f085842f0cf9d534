"""The regression of stage one to trajectories of the teacher."""

import numpy as np
import pytest
import torch
from torch import nn

from onex_distill.distill.stage_one.params import GuidanceParams, RegressionParams
from onex_distill.distill.stage_one.regression import TRAJECTORY, Regression, regression_loss
from onex_distill.engine.launch import launch
from onex_distill.engine.ranks import Ranks
from onex_distill.evaluation.trajectories import TrajectoriesJob
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.conditions import Conditions
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.sampling import Guidance, sample_latents
from onex_distill.storage.tensor_table import TensorTable
from support import write_trajectories

PARAMS = RegressionParams(weight=2.0, trajectories=5, seed=7_000_000)


class Line(nn.Module):
    """A network whose velocity is a weight times the latents, whatever the level and the prompt."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, hidden_states, **_):
        return (self.weight * hidden_states,)


@pytest.fixture
def prompts():
    return PromptBatch(torch.zeros(2, 1, 1), torch.zeros(2, 1))


def loss_of(weight, prompts):
    x = torch.tensor([1.0, -2.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    upper, lower = torch.tensor([1.0, 0.75]).double(), torch.tensor([0.75, 0.0]).double()
    target = x * (1 - 3.0 * (upper - lower))[:, None, None, None]  # where a velocity of 3 x leads
    network = Line(weight)
    return network, regression_loss(network, x, target, upper, lower, prompts)


def test_a_student_that_leads_where_the_teacher_does_has_no_loss(prompts):
    assert float(loss_of(3.0, prompts)[1].detach()) == pytest.approx(0, abs=1e-24)


def test_loss_and_gradient_are_those_of_the_velocity(prompts):
    network, loss = loss_of(2.0, prompts)
    loss.backward()
    assert float(loss.detach()) == pytest.approx((1 + 4) / 2)  # the mean of x squared, whatever a step's length
    assert float(network.weight.grad) == pytest.approx(-2 * (1 + 4) / 2)


@pytest.fixture
def conditions(inputs):
    return Conditions(teacher=inputs.teacher, embeddings=inputs.embeddings, empty=inputs.empty)


@pytest.fixture
def trajectories(conditions, stage_one_params, compute, tmp_path):
    """``trajectories(**changes)`` is the table that the teacher's six steps give a student of two."""

    def sample(conditions=conditions, **changes):
        params = stage_one_params.model_copy(update={"regression": PARAMS, **changes})
        job = TrajectoriesJob(
            folder=tmp_path / "run",
            compute=compute,
            conditions=conditions,
            params=params,
            teacher_steps=6,
            batch_size=2,
        )
        return TensorTable(launch(job) / "trajectories")

    return sample


@pytest.mark.parametrize("axis", ["sigma", "u"])
def test_trajectories_are_the_guided_teachers_at_the_students_levels(trajectories, conditions, axis):
    alpha = {"sigma": 0.9, "u": 0.75}[axis]  # the same level: 0.9 = 3 * 0.75 / (1 + 2 * 0.75)
    table = trajectories(guidance=GuidanceParams(scale=4.0, alpha=alpha, axis=axis))
    network = conditions.teacher.transformer.load().eval()
    noise = noise_from_seeds(table.index["noise_seed"], latent_shape(network))
    captions = read_prompts(conditions.embeddings.open(), table.index["prompt_row"].to_numpy(), torch.device("cpu"))
    guided = Guidance(4.0, read_prompts(conditions.empty.open(), [0], torch.device("cpu")), 0.9 + 1e-9)
    levels = step_sigmas(6, 3.0)  # which hold the students' 1, 0.75 and 0
    paths = table.column(TRAJECTORY)
    torch.testing.assert_close(paths[:, 0], noise)
    torch.testing.assert_close(paths[:, 1], sample_latents(network, noise, levels[:4], captions, guided))
    torch.testing.assert_close(paths[:, 2], sample_latents(network, noise, levels, captions, guided))


def test_trajectories_are_of_training_captions(trajectories, conditions, tmp_path):
    embeddings = conditions.embeddings.open()
    index = embeddings.index.assign(split=["train", "heldout", "train", "reference"])
    columns = {name: embeddings.column(name) for name in embeddings.names}
    split = TensorTable.write(tmp_path / "split", index, columns).handle
    table = trajectories(conditions.model_copy(update={"embeddings": split}))
    assert len(table) == PARAMS.trajectories
    assert set(table.index["prompt_row"]) == {0, 2}
    assert list(table.index["noise_seed"]) == list(range(PARAMS.seed, PARAMS.seed + PARAMS.trajectories))


def test_without_regression_there_is_none(trajectories):
    assert len(trajectories(regression=None)) == 0


def test_every_update_draws_other_trajectories_and_steps(inputs, compute, tmp_path, monkeypatch):
    table = write_trajectories(tmp_path / "trajectories", inputs, 2).open()
    levels, drawn = step_sigmas(2, 3.0), []

    def note(student, x, target, upper, lower, prompts):
        drawn.append((x, upper))
        return student * x.sum()

    monkeypatch.setattr("onex_distill.distill.stage_one.regression.regression_loss", note)
    regression = Regression(PARAMS, table, inputs.embeddings.open(), levels, 16, Ranks(compute))
    weight = torch.ones((), requires_grad=True)
    for step in (0, 0, 1):
        regression.backward(weight, slice(0, 16), step, 1.0)
    (first, sigma), (again, _), (other, _) = drawn
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert set(np.round(sigma.tolist(), 6)) == {1.0, 0.75}


class Prompted(nn.Module):
    """A network whose velocity is a weight times the sum of the prompt's pooled embedding."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))

    def forward(self, hidden_states, timestep, pooled_projections, **_):
        scale = self.weight * pooled_projections.sum(1) * timestep / 1000
        return (scale[:, None, None, None].expand_as(hidden_states),)


@pytest.fixture
def regression(inputs, compute, tmp_path):
    table = write_trajectories(tmp_path / "trajectories", inputs, 2).open()
    return Regression(PARAMS, table, inputs.embeddings.open(), step_sigmas(2, 3.0), 16, Ranks(compute))


def test_every_row_is_led_along_its_own_path_with_its_own_prompt(regression, inputs, monkeypatch):
    seen = []

    def note(student, x, target, upper, lower, prompts):
        seen.append((x, target, upper, lower, prompts.pooled))
        return student * x.sum()

    monkeypatch.setattr("onex_distill.distill.stage_one.regression.regression_loss", note)
    regression.backward(torch.ones((), requires_grad=True), slice(4, 16), 0, 1.0)
    paths, levels = regression.trajectories.column(TRAJECTORY), step_sigmas(2, 3.0).tolist()
    pooled = inputs.embeddings.open().column("pooled_prompt_embeds")
    rows = list(zip(*seen[0], strict=True))
    assert len(rows) == 12
    for x, target, upper, lower, prompt in rows:
        ((path, k),) = (paths == x).flatten(2).all(2).nonzero().tolist()
        assert torch.equal(target, paths[path, k + 1])
        assert (float(upper), float(lower)) == pytest.approx((levels[k], levels[k + 1]))
        assert torch.equal(prompt, pooled[regression.prompt_rows[path]])


def test_the_gradient_has_the_weights_of_the_term_and_of_the_rows(regression):
    gradients = []
    for term, rows in ((1.0, 1.0), (2.0, 1.0), (2.0, 0.5)):
        network, regression.params = Prompted(), PARAMS.model_copy(update={"weight": term})
        loss = regression.backward(network, slice(0, 16), 0, rows)
        gradients.append(float(network.weight.grad) / (term * rows))
    assert gradients == pytest.approx([gradients[0]] * 3)
    assert gradients[0] != 0
    assert loss == pytest.approx(regression.backward(Prompted(), slice(0, 16), 0, 1.0))


def test_trajectories_of_another_number_of_steps_are_refused(jobs, inputs, tmp_path):
    paths = write_trajectories(tmp_path / "trajectories", inputs, 4)
    with pytest.raises(
        ValueError, match=r"trajectories at 5 levels, where a student of 2 steps has 3; sample them anew"
    ):
        launch(jobs("stage_one", tmp_path / "run", regression=PARAMS, trajectories=paths))


def test_regression_without_trajectories_is_refused(jobs, tmp_path):
    with pytest.raises(ValueError, match=r"regression needs the teacher's trajectories; set regression to null here"):
        jobs("stage_one", tmp_path / "run", regression=PARAMS)


def test_regression_for_several_numbers_of_steps_is_refused(jobs, inputs, tmp_path):
    paths = write_trajectories(tmp_path / "trajectories", inputs, 2)
    with pytest.raises(ValueError, match=r"regression follows the teacher at one schedule's levels, not at those of"):
        jobs("stage_one", tmp_path / "run", regression=PARAMS, num_inference_steps=(2, 4), trajectories=paths)
