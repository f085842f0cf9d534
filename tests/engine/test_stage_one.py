from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from onex_distill.engine import stage_one
from onex_distill.engine.launch import launch
from onex_distill.engine.stage_one import (
    Roles,
    StageOneTrainer,
    Window,
    fake_score_loss,
    roll_out,
    student_loss,
)
from onex_distill.flow.conversions import renoise
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.sampling import sample_latents
from onex_distill.models.tiny import build_transformer, seeded
from onex_distill.models.velocity import predict_velocity
from onex_distill.storage.model_folder import ModelFolder, save_model
from onex_distill.storage.tensor_table import TensorTable

SHIFT = 3.0


@pytest.fixture
def roles(architecture, empty) -> Roles:
    with seeded(0):
        teacher, student, fake_score = (build_transformer(architecture).eval() for _ in range(3))
    return Roles(teacher.requires_grad_(False), student, fake_score, empty)


@pytest.fixture
def window() -> Window:
    levels = step_sigmas(2, SHIFT).float()
    steps = torch.tensor([0, 1, 0])
    return Window(levels[steps], levels[steps + 1])


def batch_sizes(transformer: nn.Module) -> list[int]:
    sizes: list[int] = []
    transformer.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    return sizes


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(9)


@pytest.fixture
def fresh(noise) -> Tensor:
    """Noise to re-noise with."""
    return torch.randn(noise.shape, generator=draws())


@pytest.mark.parametrize(
    ("steps", "forwards"), [([0, 0, 0], []), ([0, 2, 1], [2, 1]), ([3, 3, 3], [3, 3, 3]), ([0, 0, 1], [1])]
)
def test_the_rollout_runs_no_more_than_each_sample_needs(transformer, prompts, noise, steps, forwards):
    sizes = batch_sizes(transformer)
    roll_out(transformer, noise, torch.tensor(steps), step_sigmas(4, SHIFT), prompts, max(steps))
    assert sizes == forwards


def test_a_rank_whose_samples_need_less_still_calls_the_network_as_often(transformer, prompts, noise):
    sizes, levels, steps = batch_sizes(transformer), step_sigmas(4, SHIFT), torch.tensor([0, 1, 0])
    x, window = roll_out(transformer, noise, steps, levels, prompts, depth=3)
    assert sizes == [1, 1, 1]
    expected, expected_window = roll_out(transformer, noise, steps, levels, prompts, depth=1)
    assert torch.equal(x, expected)
    assert torch.equal(window.upper, expected_window.upper)


def test_the_rollout_follows_the_samplers_path(transformer, prompts, noise):
    levels = step_sigmas(4, SHIFT)
    before = noise.clone()
    x, window = roll_out(transformer, noise, torch.tensor([0, 3, 2]), levels, prompts, depth=3)
    for row, step in enumerate([0, 3, 2]):
        one = torch.tensor([row])
        expected = sample_latents(transformer, noise[one], levels[: step + 1], prompts[one])
        torch.testing.assert_close(x[one], expected, rtol=1e-4, atol=1e-5)
    assert window.upper.tolist() == pytest.approx([1.0, 0.5, 0.75])
    assert window.lower.tolist() == pytest.approx([0.9, 0.0, 0.5])
    assert torch.equal(noise, before)
    assert not x.requires_grad


def test_drawn_sigmas_lie_in_their_windows(stage_one_params):
    sampler = stage_one._SigmaDraws(stage_one_params, SHIFT, step_sigmas(2, SHIFT))
    levels = step_sigmas(2, SHIFT).float()
    steps = torch.arange(2).repeat_interleave(500)
    window = Window(levels[steps], levels[steps + 1])
    for draw in (sampler.student, sampler.fake):
        sigma = draw(window, draws())
        assert (sigma <= window.upper + 1e-6).all()
        assert (sigma > window.lower).all()
        assert sigma.dtype == torch.float32


def test_the_fake_score_regresses_the_velocity_towards_the_students_x0(roles, prompts, noise, fresh, window):
    x_end, x0 = 0.5 * noise, 0.2 * noise
    sigma = torch.tensor([0.9, 0.4, 0.8])
    loss = fake_score_loss(roles, x_end, x0, prompts, window, sigma, fresh)
    x_sigma = renoise(x_end, window.lower, sigma, fresh)
    velocity = predict_velocity(roles.fake_score, x_sigma, sigma, prompts)
    expected = ((x_sigma - sigma[:, None, None, None] * velocity - x0) / sigma[:, None, None, None]).square().mean()
    torch.testing.assert_close(loss, expected)


def loss_gradient(roles: Roles, prompts, noise: Tensor, window: Window, guided: list[bool]) -> Tensor:
    """Gradient of the student's loss with respect to the latents at the end of the step."""
    x_end = noise.clone().requires_grad_()
    sigma = (window.upper + window.lower) / 2
    fresh = torch.randn(noise.shape, generator=draws()).to(noise.dtype)
    student_loss(roles, x_end, prompts, window, sigma, torch.tensor(guided), 4.0, fresh).backward()
    return x_end.grad


def in_float64(roles: Roles, prompts):
    networks = (roles.teacher, roles.student, roles.fake_score)
    roles = Roles(*(network.double() for network in networks), double_batch(roles.empty))
    return roles, double_batch(prompts)


def double_batch(batch):
    return type(batch)(batch.embeds.double(), batch.pooled.double())


def test_nothing_is_left_to_learn_when_both_scores_agree(roles, prompts, noise, window):
    roles.fake_score.load_state_dict(roles.teacher.state_dict())
    roles, prompts = in_float64(roles, prompts)
    unguided = loss_gradient(roles, prompts, noise.double(), window, [False] * 3)
    mixed = loss_gradient(roles, prompts, noise.double(), window, [True, False, False])
    assert unguided.abs().max() < 1e-10
    assert mixed[0].abs().max() > 1e-6
    assert mixed[1:].abs().max() < 1e-10


def test_a_guided_row_moves_only_its_own_gradient(roles, prompts, noise, window):
    plain = loss_gradient(roles, prompts, noise, window, [False] * 3)
    guided = loss_gradient(roles, prompts, noise, window, [False, True, False])
    torch.testing.assert_close(guided[[0, 2]], plain[[0, 2]], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(guided[1], plain[1], rtol=1e-2)


def test_scores_carry_no_gradient_of_the_student_loss(roles, prompts, noise, fresh, window):
    velocity = predict_velocity(roles.student, noise, window.upper, prompts)
    sigma = (window.upper + window.lower) / 2
    everywhere = torch.ones(3, dtype=torch.bool)
    student_loss(roles, noise - velocity, prompts, window, sigma, everywhere, 4.0, fresh).backward()
    assert all(p.grad is None for p in [*roles.teacher.parameters(), *roles.fake_score.parameters()])
    assert roles.student.proj_out.weight.grad.abs().sum() > 0


@pytest.fixture
def trainer(jobs, ranks, tmp_path):
    """Make a trainer of a job with some changes."""

    def make(**changes) -> StageOneTrainer:
        return StageOneTrainer(jobs("stage_one", tmp_path, **changes), ranks)

    return make


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_each_update_reaches_only_its_own_network(monkeypatch, inputs, trainer):
    networks: dict[str, nn.Module] = {}
    log: list[set[str]] = []

    class Recording(stage_one.Stepper):
        def step(self, loss):
            loss.backward()
            reached = {name for name, net in networks.items() if any(p.grad is not None for p in net.parameters())}
            log.append(reached)
            return self.apply()

    monkeypatch.setattr(stage_one, "Stepper", Recording)
    running = trainer()
    roles = running.roles
    networks.update(teacher=roles.teacher, student=roles.student, fake_score=roles.fake_score)
    networks.update(average=running.average)
    for step in range(4):
        running.update(step)
    assert log == [{"fake_score"}, {"student"}] * 4
    start = inputs.teacher.transformer.load()
    assert same(roles.teacher, start)
    for network in (roles.student, roles.fake_score, running.average.module):
        assert not torch.equal(network.proj_out.weight, start.proj_out.weight)


def test_the_draws_of_a_step_are_a_function_of_seed_and_step(trainer):
    torch.manual_seed(1)
    first = trainer().draw(3)
    torch.manual_seed(2)
    again = trainer().draw(3)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    for other in (trainer().draw(4), trainer(seed=6).draw(3)):
        assert not torch.equal(first.noise, other.noise)
        assert not torch.equal(first.student_noise, other.student_noise)


def test_a_ranks_share_are_its_rows_of_the_draws(trainer):
    drawn = trainer().draw(0)
    share = drawn.share(slice(1, 3), torch.device("cpu"))
    assert all(torch.equal(mine, every[1:3]) for mine, every in zip(share, drawn, strict=True))


def test_only_training_captions_are_drawn(trainer, inputs, tmp_path):
    table = inputs.embeddings.open()
    index = table.index.assign(split=["heldout", "train", "reference", "train"])
    columns = {name: table.column(name) for name in table.names}
    split = TensorTable.write(tmp_path / "split", index, columns).handle
    running = trainer(embeddings=split, batch_size=64)
    drawn = running.draw(0)
    assert set(running.rows[drawn.rows.numpy()].tolist()) == {1, 3}
    assert set(drawn.steps.tolist()) == {0, 1}
    read: list[Tensor] = []
    running.roles.student.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["pooled_projections"]), with_kwargs=True
    )
    running.update(0)
    expected = columns["pooled_prompt_embeds"][[1, 3]]
    assert torch.equal(torch.cat(read).unique(dim=0), expected.unique(dim=0))


def test_a_step_is_described_by_its_seed_and_rows(trainer):
    running = trainer()
    rows = running.rows[running.draw(2).rows.numpy()].tolist()
    assert running.describe(2) == f"seed 5, rows {rows} of the prompt embeddings"


def test_windows_too_narrow_to_draw_from_are_refused_before_training(jobs, tmp_path):
    with pytest.raises(ValueError, match="window holds none of the 1000 training levels; use fewer steps") as error:
        launch(jobs("stage_one", tmp_path, num_inference_steps=5000))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("step-*"))


def test_resuming_equals_running_through(jobs, tmp_path, interrupt, assert_same_result):
    torch.manual_seed(1)
    whole = launch(jobs("stage_one", tmp_path / "whole"))
    torch.manual_seed(2)
    with interrupt(stage_one, 3):
        launch(jobs("stage_one", tmp_path / "parts"))
    assert (tmp_path / "parts/step-00000002").is_dir()
    assert_same_result(whole, launch(jobs("stage_one", tmp_path / "parts")))


def student_of(result: Path):
    return ModelFolder(path=result / "student", class_name="diffusers.SD3Transformer2DModel").load()


def test_the_seed_fixes_the_weights(jobs, tmp_path, assert_same_result):
    torch.manual_seed(1)
    first = launch(jobs("stage_one", tmp_path / "first", seed=5))
    torch.manual_seed(2)
    assert_same_result(first, launch(jobs("stage_one", tmp_path / "same", seed=5)))
    other = launch(jobs("stage_one", tmp_path / "other", seed=6))
    assert not same(student_of(first), student_of(other))


@pytest.mark.parametrize(("alpha", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_alpha_switches_the_teachers_guidance(jobs, tmp_path, alpha, share):
    history = pd.read_parquet(launch(jobs("stage_one", tmp_path, alpha=alpha)) / "losses.parquet")
    assert history["guided_share"].tolist() == [share] * 4


def test_another_teachers_run_is_refused(jobs, architecture, tmp_path):
    launch(jobs("stage_one", tmp_path / "run"))
    with seeded(77):
        save_model(build_transformer(architecture), tmp_path / "other")
    other = ModelFolder(path=tmp_path / "other", class_name="diffusers.SD3Transformer2DModel")
    with pytest.raises(ValueError, match=r"unfinished run with other settings: input\.teacher has other contents"):
        launch(jobs("stage_one", tmp_path / "run", teacher=other))


def test_the_student_comes_back_as_a_plain_transformer_of_averaged_weights(jobs, ranks, prompts, noise, tmp_path):
    job = jobs("stage_one", tmp_path / "run")
    student, running = student_of(launch(job)), StageOneTrainer(job, ranks)
    for step in range(4):
        running.update(step)
    assert not student.training
    assert same(student, running.average.module)
    assert not same(student, running.roles.student)
    levels = step_sigmas(2, SHIFT)
    outputs = [sample_latents(model, noise, levels, prompts) for model in (student, running.average.module)]
    assert torch.equal(*outputs)
