import copy

import pytest
import torch
from torch import Tensor, nn

from onex_distill.engine import stage_one
from onex_distill.engine.stage_one import (
    GuidanceParams,
    ImportanceParams,
    Roles,
    StageOneParams,
    Window,
    fake_score_loss,
    roll_out,
    student_loss,
    train_stage_one,
)
from onex_distill.flow.conversions import renoise
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.sampling import sample_latents
from onex_distill.models.tiny import build_transformer, seeded
from onex_distill.models.velocity import predict_velocity

SHIFT = 3.0


@pytest.fixture
def params(optimizer, loop) -> StageOneParams:
    return StageOneParams(
        seed=5,
        num_inference_steps=2,
        batch_size=3,
        guidance=GuidanceParams(scale=4.0, alpha=0.9, axis="sigma"),
        importance=ImportanceParams(preset="c", axis="sigma", smoothing=100.0),
        student=optimizer,
        fake_score=optimizer,
        ema_decay=0.5,
        loop=loop,
    )


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


@pytest.mark.parametrize(
    ("steps", "forwards"), [([0, 0, 0], []), ([0, 2, 1], [2, 1]), ([3, 3, 3], [3, 3, 3]), ([0, 0, 1], [1])]
)
def test_the_rollout_runs_no_more_than_each_sample_needs(transformer, prompts, noise, steps, forwards):
    sizes = batch_sizes(transformer)
    roll_out(transformer, noise, torch.tensor(steps), step_sigmas(4, SHIFT), prompts)
    assert sizes == forwards


def test_the_rollout_follows_the_samplers_path(transformer, prompts, noise):
    levels = step_sigmas(4, SHIFT)
    before = noise.clone()
    x, window = roll_out(transformer, noise, torch.tensor([0, 3, 2]), levels, prompts)
    for row, step in enumerate([0, 3, 2]):
        one = torch.tensor([row])
        expected = sample_latents(transformer, noise[one], levels[: step + 1], prompts[one])
        torch.testing.assert_close(x[one], expected, rtol=1e-4, atol=1e-5)
    assert window.upper.tolist() == pytest.approx([1.0, 0.5, 0.75])
    assert window.lower.tolist() == pytest.approx([0.9, 0.0, 0.5])
    assert torch.equal(noise, before)
    assert not x.requires_grad


def test_drawn_sigmas_lie_in_their_windows(params):
    sampler = stage_one._SigmaDraws(params, SHIFT, step_sigmas(params.num_inference_steps, SHIFT))
    levels = step_sigmas(2, SHIFT).float()
    steps = torch.arange(2).repeat_interleave(500)
    window = Window(levels[steps], levels[steps + 1])
    for draw in (sampler.student, sampler.fake):
        sigma = draw(window, draws())
        assert (sigma <= window.upper + 1e-6).all()
        assert (sigma > window.lower).all()
        assert sigma.dtype == torch.float32


def test_the_fake_score_regresses_the_velocity_towards_the_students_x0(roles, prompts, noise, window):
    x_end, x0 = 0.5 * noise, 0.2 * noise
    sigma = torch.tensor([0.9, 0.4, 0.8])
    loss = fake_score_loss(roles, x_end, x0, prompts, window, sigma, draws())
    x_sigma = renoise(x_end, window.lower, sigma, torch.randn(noise.shape, generator=draws()))
    velocity = predict_velocity(roles.fake_score, x_sigma, sigma, prompts)
    expected = ((x_sigma - sigma[:, None, None, None] * velocity - x0) / sigma[:, None, None, None]).square().mean()
    torch.testing.assert_close(loss, expected)


def loss_gradient(roles: Roles, prompts, noise: Tensor, window: Window, guided: list[bool]) -> Tensor:
    """Gradient of the student's loss with respect to the latents at the end of the step."""
    x_end = noise.clone().requires_grad_()
    sigma = (window.upper + window.lower) / 2
    student_loss(roles, x_end, prompts, window, sigma, torch.tensor(guided), 4.0, draws()).backward()
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


def test_scores_carry_no_gradient_of_the_student_loss(roles, prompts, noise, window):
    velocity = predict_velocity(roles.student, noise, window.upper, prompts)
    sigma = (window.upper + window.lower) / 2
    student_loss(
        roles, noise - velocity, prompts, window, sigma, torch.ones(3, dtype=torch.bool), 4.0, draws()
    ).backward()
    assert all(p.grad is None for p in [*roles.teacher.parameters(), *roles.fake_score.parameters()])
    assert roles.student.proj_out.weight.grad.abs().sum() > 0


def test_each_update_reaches_only_its_own_network(tmp_path, monkeypatch, transformer, prompt_tables, params):
    networks: dict[str, nn.Module] = {}
    log: list[set[str]] = []

    def remember(teacher, student, fake_score, empty):
        networks.update(teacher=teacher, student=student, fake_score=fake_score)
        return Roles(teacher, student, fake_score, empty)

    class Recording(stage_one.Stepper):
        def step(self, loss):
            loss.backward()
            reached = {name for name, net in networks.items() if any(p.grad is not None for p in net.parameters())}
            log.append(reached)
            return self.apply()

    monkeypatch.setattr(stage_one, "Roles", remember)
    monkeypatch.setattr(stage_one, "Stepper", Recording)
    before = copy.deepcopy(transformer.state_dict())
    train_stage_one(transformer, prompt_tables.prompts, prompt_tables.empty, SHIFT, params, tmp_path)
    assert log == [{"fake_score"}, {"student"}] * 4
    assert all(torch.equal(before[name], tensor) for name, tensor in transformer.state_dict().items())
    for name in ("student", "fake_score"):
        assert not torch.equal(networks[name].proj_out.weight, before["proj_out.weight"])


def test_resuming_equals_running_through(tmp_path, transformer, prompt_tables, params, interrupt, assert_same_run):
    def run(name: str):
        return train_stage_one(transformer, prompt_tables.prompts, prompt_tables.empty, SHIFT, params, tmp_path / name)

    torch.manual_seed(1)
    whole = run("whole")
    torch.manual_seed(2)
    with interrupt(stage_one, 3):
        run("parts")
    assert_same_run(whole, run("parts"))


def test_the_seed_fixes_the_weights(tmp_path, transformer, prompt_tables, params, assert_same_run):
    def run(name: str, seed: int):
        changed = params.model_copy(update={"seed": seed})
        return train_stage_one(transformer, prompt_tables.prompts, prompt_tables.empty, SHIFT, changed, tmp_path / name)

    torch.manual_seed(1)
    first = run("first", 5)
    torch.manual_seed(2)
    assert_same_run(first, run("same", 5))
    assert not torch.equal(first[0].proj_out.weight, run("other", 6)[0].proj_out.weight)


@pytest.mark.parametrize(("alpha", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_alpha_switches_the_teachers_guidance(tmp_path, transformer, prompt_tables, params, alpha, share):
    guidance = GuidanceParams(scale=4.0, alpha=alpha, axis="sigma")
    changed = params.model_copy(update={"guidance": guidance})
    _, history = train_stage_one(transformer, prompt_tables.prompts, prompt_tables.empty, SHIFT, changed, tmp_path)
    assert history["guided_share"].tolist() == [share] * 4


def test_another_teachers_run_is_refused(tmp_path, architecture, transformer, prompt_tables, params):
    tables = (prompt_tables.prompts, prompt_tables.empty)
    train_stage_one(transformer, *tables, SHIFT, params, tmp_path)
    with seeded(77):
        other = build_transformer(architecture)
    with pytest.raises(ValueError, match="other parameters or inputs"):
        train_stage_one(other, *tables, SHIFT, params, tmp_path)


def test_the_student_comes_back_as_a_plain_frozen_transformer(
    tmp_path, transformer, prompt_tables, params, prompts, noise
):
    student, _ = train_stage_one(
        transformer, prompt_tables.prompts, prompt_tables.empty, SHIFT, params, tmp_path / "run"
    )
    assert not student.training
    assert not any(parameter.requires_grad for parameter in student.parameters())
    student.save_pretrained(tmp_path / "student")
    loaded = type(student).from_pretrained(tmp_path / "student")
    levels = step_sigmas(2, SHIFT)
    assert torch.equal(sample_latents(loaded, noise, levels, prompts), sample_latents(student, noise, levels, prompts))
