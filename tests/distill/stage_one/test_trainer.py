import pytest
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file
from torch import Tensor, nn

from onex_distill.distill.stage_one import trainer as stage_one
from onex_distill.distill.stage_one.latent_gan import LatentGanParams
from onex_distill.distill.stage_one.params import GuidanceParams, RegressionParams
from onex_distill.distill.stage_one.roles import FAKE_SCORE, STUDENT, Roles
from onex_distill.distill.stage_one.trainer import Matched, StageOneTrainer, fake_score_loss, roll_out, student_loss
from onex_distill.engine.launch import launch
from onex_distill.engine.randomness import seeded
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run
from onex_distill.flow.conversions import renoise
from onex_distill.flow.sigma_draws import Window
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.losses.distribution_matching import distribution_matching_loss
from onex_distill.models.sampling import sample_latents
from onex_distill.models.velocity import predict_velocity
from onex_distill.pretraining.architecture import build_transformer
from onex_distill.storage.model_folder import ModelFolder, save_model
from onex_distill.storage.tensor_table import TensorTable
from support import write_trajectories

SHIFT = 3.0
GAN = {"latent_gan": LatentGanParams(student_weight=0.1, fake_score_weight=0.2, hidden=4)}
WEIGHTS = "result/student/diffusion_pytorch_model.safetensors"


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


@pytest.fixture
def trainer(jobs, ranks, tmp_path):
    """``trainer(**changes)`` is the trainer of a tiny job."""

    def make(**changes) -> StageOneTrainer:
        job = jobs("stage_one", tmp_path / "run", **changes)
        return StageOneTrainer(job, Run(job.folder, {}, ranks))

    return make


def watch_batches(network: nn.Module) -> list[int]:
    """The rows of every call from now on."""
    sizes: list[int] = []
    network.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    return sizes


def trained(job) -> dict[str, Tensor]:
    """The weights of the student that a job makes."""
    launch(job)
    return load_file(job.folder / WEIGHTS)


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.parametrize(
    ("steps", "forwards"), [([0, 0, 0], []), ([0, 2, 1], [2, 1]), ([3, 3, 3], [3, 3, 3]), ([0, 0, 1], [1])]
)
def test_the_rollout_runs_no_more_than_each_sample_needs(transformer, prompts, noise, steps, forwards):
    sizes = watch_batches(transformer)
    roll_out(transformer, noise, torch.tensor(steps), step_sigmas(4, SHIFT), prompts, max(steps))
    assert sizes == forwards


def test_a_rank_that_is_done_joins_the_others_calls_without_an_effect(transformer, prompts, noise):
    sizes, steps, levels = watch_batches(transformer), torch.tensor([0, 1, 0]), step_sigmas(4, SHIFT)
    alone, _ = roll_out(transformer, noise, steps, levels, prompts, depth=1)
    joining, _ = roll_out(transformer, noise, steps, levels, prompts, depth=3)
    assert sizes == [1, 1, 1, 1]
    assert torch.equal(alone, joining)


def test_the_rollout_follows_the_samplers_path(transformer, prompts, noise):
    levels = step_sigmas(4, SHIFT)
    before = noise.clone()
    x, window = roll_out(transformer, noise, torch.tensor([0, 3, 2]), levels, prompts, 3)
    for row, step in enumerate([0, 3, 2]):
        one = torch.tensor([row])
        expected = sample_latents(transformer, noise[one], levels[: step + 1], prompts[one])
        torch.testing.assert_close(x[one], expected, rtol=1e-4, atol=1e-5)
    assert window.upper.tolist() == pytest.approx([1.0, 0.5, 0.75])
    assert window.lower.tolist() == pytest.approx([0.9, 0.0, 0.5])
    assert torch.equal(noise, before)
    assert not x.requires_grad


def test_the_fake_score_regresses_the_velocity_towards_the_students_x0(roles, prompts, noise, window):
    x_end, x0, fresh = 0.5 * noise, 0.2 * noise, noise.flip(0)
    sigma = torch.tensor([0.9, 0.4, 0.8])
    scored = fake_score_loss(roles.fake_score, Matched(x_end, x0, window), prompts, sigma, fresh)
    x_sigma = renoise(x_end, window.lower, sigma, fresh)
    velocity = predict_velocity(roles.fake_score, x_sigma, sigma, prompts)
    expected = ((x_sigma - sigma[:, None, None, None] * velocity - x0) / sigma[:, None, None, None]).square()
    torch.testing.assert_close(scored.loss, expected.mean())
    torch.testing.assert_close(scored.by_sample, expected.mean((1, 2, 3)).detach())


def test_from_x0_the_fake_score_regresses_plain_flow_matching(roles, prompts, noise):
    x0, fresh, sigma = 0.2 * noise, noise.flip(0), torch.tensor([0.9, 0.4, 0.8])
    whole = Window(torch.ones(3), torch.zeros(3))
    scored = fake_score_loss(roles.fake_score, Matched(x0, x0, whole), prompts, sigma, fresh)
    s = sigma[:, None, None, None]
    velocity = predict_velocity(roles.fake_score, (1 - s) * x0 + s * fresh, sigma, prompts)
    torch.testing.assert_close(scored.loss, (velocity - (fresh - x0)).square().mean(), rtol=1e-4, atol=1e-6)


def loss_gradient(roles: Roles, prompts, noise: Tensor, window: Window, guided: list[bool]) -> Tensor:
    """Gradient of the student's loss with respect to the latents at the end of the step."""
    x_end = noise.clone().requires_grad_()
    sigma = (window.upper + window.lower) / 2
    matched = Matched(x_end, noise, window)
    student_loss(roles, matched, prompts, sigma, torch.tensor(guided), 4.0, noise.flip(0)).loss.backward()
    return x_end.grad


def in_float64(roles: Roles, prompts):
    networks = (roles.teacher, roles.student, roles.fake_score)
    return Roles(*(network.double() for network in networks), double_batch(roles.empty)), double_batch(prompts)


def double_batch(batch):
    return type(batch)(batch.embeds.double(), batch.pooled.double())


@torch.no_grad()
def test_the_students_loss_compares_the_guided_teacher_with_the_fake_score(roles, prompts, empty, noise, window):
    x, sigma, guided = 0.5 * noise, (window.upper + window.lower) / 2, [True, False, True]
    scored = student_loss(roles, Matched(x, noise, window), prompts, sigma, torch.tensor(guided), 4.0, noise.flip(0))
    x_sigma = renoise(x, window.lower, sigma, noise.flip(0))
    real, fake = (predict_velocity(network, x_sigma, sigma, prompts) for network in (roles.teacher, roles.fake_score))
    unconditional = predict_velocity(roles.teacher, x_sigma, sigma, empty.expand(3))
    scale = torch.tensor([4.0 if is_guided else 1.0 for is_guided in guided])[:, None, None, None]
    real = unconditional + scale * (real - unconditional)
    back = (sigma - window.lower)[:, None, None, None]
    x_real, x_fake = x_sigma - back * real, x_sigma - back * fake
    torch.testing.assert_close(scored.loss, distribution_matching_loss(x, x_real, x_fake), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scored.by_sample, (x_real - x_fake).abs().mean((1, 2, 3)), rtol=1e-3, atol=1e-6)


def test_every_loss_has_draws_of_its_own_and_guidance_those_of_the_student(trainer, monkeypatch):
    run = trainer(batch_size=8, guidance=GuidanceParams(scale=4.0, alpha=0.75, axis="u"))
    seen: dict[str, tuple] = {}

    def watch(name: str) -> None:
        function = getattr(stage_one, name)
        monkeypatch.setattr(stage_one, name, lambda *args: seen.update({name: args}) or function(*args))

    watch("fake_score_loss")
    watch("student_loss")
    run.update(0)
    drawn = run.draws.draw(0)
    *_, sigma, fresh = seen["fake_score_loss"]
    assert torch.equal(sigma, drawn.fake_sigma)
    assert torch.equal(fresh, drawn.fake_noise)
    *_, sigma, guided, scale, fresh = seen["student_loss"]
    assert torch.equal(sigma, drawn.sigma)
    assert torch.equal(fresh, drawn.student_noise)
    assert scale == 4.0
    assert torch.equal(guided, drawn.sigma <= 0.9 + 1e-6)  # the sigma of a u of 0.75
    assert len(set(guided.tolist())) == 2


def test_nothing_is_left_to_learn_when_both_scores_agree(roles, prompts, noise, window):
    roles.fake_score.load_state_dict(roles.teacher.state_dict())
    roles, prompts = in_float64(roles, prompts)
    unguided = loss_gradient(roles, prompts, noise.double(), window, [False] * 3)
    mixed = loss_gradient(roles, prompts, noise.double(), window, [True, False, False])
    assert unguided.abs().max() < 1e-10
    assert mixed[0].abs().max() > 1e-6
    assert mixed[1:].abs().max() < 1e-10


def test_both_scores_see_the_same_noise(roles, prompts, noise, window):
    """A draw of its own in each branch would leave noise in their difference; one draw leaves none."""
    roles.fake_score.load_state_dict(roles.teacher.state_dict())
    sigma = (window.upper + window.lower) / 2
    scored = student_loss(roles, Matched(noise, noise, window), prompts, sigma, torch.zeros(3, dtype=bool), 4.0, noise)
    assert scored.by_sample.max() < 1e-6


def test_a_guided_row_moves_only_its_own_gradient(roles, prompts, noise, window):
    plain = loss_gradient(roles, prompts, noise, window, [False] * 3)
    guided = loss_gradient(roles, prompts, noise, window, [False, True, False])
    torch.testing.assert_close(guided[[0, 2]], plain[[0, 2]], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(guided[1], plain[1], rtol=1e-2)


@pytest.mark.parametrize("parametrization", ["full", "shared_backbone"])
def test_each_update_reaches_only_its_own_network(trainer, parametrization):
    run = trainer(parametrization=parametrization, lora={"rank": 2, "alpha": 2.0})
    weights = {role: run.networks.parameters(role) for role in (STUDENT, FAKE_SCORE)}
    before = {role: [p.detach().clone() for p in weights[role]] for role in weights}

    def moved(role: str) -> bool:
        return any(not torch.equal(a, b) for a, b in zip(before[role], weights[role], strict=True))

    run.fake_stepper.apply = lambda: 0.0
    run.update(0)
    assert any(p.grad is not None for p in weights[FAKE_SCORE])
    assert not moved(FAKE_SCORE)
    assert moved(STUDENT)
    assert all(p.grad is None for p in weights[STUDENT])


@pytest.mark.parametrize("parametrization", ["full", "shared_backbone"])
def test_the_teacher_never_changes(trainer, inputs, prompts, noise, parametrization):
    run = trainer(parametrization=parametrization)
    for step in range(2):
        run.update(step)
    with torch.no_grad():
        before = predict_velocity(inputs.teacher.transformer.load(), noise, 0.8, prompts)
        assert torch.equal(predict_velocity(run.roles.teacher, noise, 0.8, prompts), before)
        for network in (run.roles.student, run.roles.fake_score):
            assert not torch.allclose(predict_velocity(network, noise, 0.8, prompts), before, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parametrization": "shared_backbone", "gradient_checkpointing": True},
        {"num_inference_steps": (1, 2, 4), "fake_updates": 2, "matched": "x0", "sigma_range": "full", **GAN},
        {"regression": RegressionParams(weight=1.0, trajectories=6, seed=1)},
    ],
    ids=["default", "shared", "choices", "regression"],
)
def test_resuming_equals_running_through(tmp_path, jobs, inputs, interrupt, assert_same_result, changes):
    trajectories = write_trajectories(tmp_path / "trajectories", inputs, 2)
    changes = {**changes, "real_latents": inputs.validation, "trajectories": trajectories}
    torch.manual_seed(1)
    whole = launch(jobs("stage_one", tmp_path / "whole", **changes))
    torch.manual_seed(2)
    with interrupt(stage_one, 3):
        launch(jobs("stage_one", tmp_path / "parts", **changes))
    assert_same_result(whole, launch(jobs("stage_one", tmp_path / "parts", **changes)))


@pytest.mark.parametrize("parametrization", ["full", "shared_backbone"])
def test_gradient_checkpointing_changes_no_weight(tmp_path, jobs, parametrization):
    students = [
        trained(jobs("stage_one", tmp_path / str(on), gradient_checkpointing=on, parametrization=parametrization))
        for on in (False, True)
    ]
    assert furthest(*students) < 1e-6


def test_the_seed_fixes_the_weights(tmp_path, jobs):
    first, same, other = (
        trained(jobs("stage_one", tmp_path / name, seed=seed)) for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert furthest(first, same) == 0
    assert furthest(first, other) > 0


@pytest.mark.parametrize(("alpha", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_alpha_switches_the_teachers_guidance(trainer, alpha, share):
    run = trainer(guidance=GuidanceParams(scale=4.0, alpha=alpha, axis="sigma"))
    assert [run.update(step)["guided_share"] for step in range(2)] == [share] * 2


def test_without_guidance_no_unconditional_row_is_computed(trainer):
    run = trainer(guidance=GuidanceParams(scale=4.0, alpha=0.0, axis="sigma"))
    sizes = watch_batches(run.networks.teacher)
    run.update(0)
    assert sizes == [3]


def test_the_student_waits_for_the_fake_score(trainer):
    run = trainer(fake_updates=3, steps=7)
    student = run.networks.parameters(STUDENT)[0]
    moves, values = [], []
    for step in range(7):
        before = student.detach().clone()
        values.append(run.update(step))
        moves.append(not torch.equal(before, student))
    assert moves == [False, False, True, False, False, True, False]
    assert [("student_loss" in columns) for columns in values] == moves
    assert run.student_stepper.scheduler.last_epoch == run.params.student_updates == 2
    for stepper in (run.student_stepper, run.fake_stepper):  # the cosine ends with the run
        assert stepper.scheduler.get_last_lr() == pytest.approx([0], abs=1e-12)


def test_without_an_average_the_student_itself_is_saved(tmp_path, jobs, trainer):
    run = trainer(ema_decay=0.0)
    for step in range(4):
        run.update(step)
    saved = trained(jobs("stage_one", tmp_path / "job", ema_decay=0.0))
    assert "average" not in run.states()
    assert furthest(run.networks.trained[STUDENT].state_dict(), saved) == 0


@pytest.mark.parametrize("parametrization", ["full", "shared_backbone"])
def test_the_saved_student_is_the_trained_one_as_a_plain_transformer(
    tmp_path, jobs, trainer, prompts, noise, parametrization
):
    changes = {"ema_decay": 0.0, "parametrization": parametrization}
    run = trainer(**changes)
    for step in range(4):
        run.update(step)
    job = jobs("stage_one", tmp_path / "job", **changes)
    launch(job)
    loaded, info = SD3Transformer2DModel.from_pretrained(job.folder / "result/student", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        expected = predict_velocity(run.roles.student, noise, 0.8, prompts)
        found = predict_velocity(loaded, noise, 0.8, prompts)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_shared_backbone_trains_and_stores_adapters_alone(trainer):
    run = trainer(parametrization="shared_backbone")
    count = {role: sum(p.numel() for p in run.networks.parameters(role)) for role in (STUDENT, FAKE_SCORE)}
    everything = dict(run.networks.model.named_parameters())
    adapters = {id(p) for role in count for p in run.networks.parameters(role)}
    assert count[STUDENT] == count[FAKE_SCORE] > 0
    assert all(("lora_" in name) == (id(p) in adapters) == p.requires_grad for name, p in everything.items())
    states = run.networks.states()
    assert sum(t.numel() for t in states[STUDENT].state_dict().values()) == count[STUDENT]
    average = states["average"].state_dict()
    assert sum(t.numel() for t in average.values()) == count[STUDENT] + 1  # and how many were averaged


def test_scores_carry_no_gradient_of_the_student_loss(roles, prompts, noise, window):
    velocity = predict_velocity(roles.student, noise, window.upper, prompts)
    sigma, everywhere = (window.upper + window.lower) / 2, torch.ones(3, dtype=torch.bool)
    matched = Matched(noise - velocity, noise, window)
    student_loss(roles, matched, prompts, sigma, everywhere, 4.0, noise.flip(0)).loss.backward()
    assert all(p.grad is None for p in [*roles.teacher.parameters(), *roles.fake_score.parameters()])
    assert roles.student.proj_out.weight.grad.abs().sum() > 0


def test_only_training_captions_are_drawn(trainer, inputs, tmp_path):
    table = inputs.embeddings.open()
    index = table.index.assign(split=["heldout", "train", "reference", "train"])
    columns = {name: table.column(name) for name in table.names}
    run = trainer(embeddings=TensorTable.write(tmp_path / "split", index, columns).handle, batch_size=64)
    assert set(run.rows[run.draws.draw(0).rows.numpy()].tolist()) == {1, 3}
    read: list[Tensor] = []
    run.networks.trained[STUDENT].register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["pooled_projections"]), with_kwargs=True
    )
    run.update(0)
    assert torch.equal(torch.cat(read).unique(dim=0), columns["pooled_prompt_embeds"][[1, 3]].unique(dim=0))


def test_a_step_is_described_by_its_seed_and_rows(trainer):
    run = trainer()
    rows = run.rows[run.draws.draw(2).rows.numpy()].tolist()
    assert run.describe(2) == f"seed 5, rows {rows} of the prompt embeddings"


def test_another_teachers_run_is_refused(jobs, architecture, tmp_path):
    launch(jobs("stage_one", tmp_path / "run"))
    with seeded(77):
        save_model(build_transformer(architecture), tmp_path / "other")
    other = ModelFolder(path=tmp_path / "other", class_name="diffusers.SD3Transformer2DModel")
    with pytest.raises(ValueError, match=r"unfinished run with other settings: input\.teacher has other contents"):
        launch(jobs("stage_one", tmp_path / "run", teacher=other))


def test_under_autocast_the_shared_backbone_is_stored_in_half_precision(jobs, tmp_path):
    job = jobs("stage_one", tmp_path, parametrization="shared_backbone", mixed_precision="bf16")
    run = StageOneTrainer(job, Run(job.folder, {}, Ranks(job.compute)))
    run.update(0)
    for name, parameter in run.networks.model.named_parameters():
        assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16), name


@pytest.mark.parametrize("changes", [{}, {"parametrization": "shared_backbone"}, {"fake_updates": 2}])
def test_an_update_in_micro_batches_reports_what_the_whole_one_does(trainer, changes):
    whole = trainer(batch_size=4, **changes).update(1)
    parts = trainer(batch_size=4, micro_batch_size=2, **changes).update(1)
    assert parts.keys() == whole.keys()
    assert parts == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_micro_batches_hold_fewer_rows_at_once(trainer):
    run = trainer(batch_size=4, micro_batch_size=2)
    sizes = watch_batches(run.networks.trained[FAKE_SCORE])
    run.update(0)
    assert sizes == [2] * 4


@pytest.mark.parametrize("name", ["stage_one", "reader"])
def test_a_micro_batch_that_does_not_divide_the_batch_is_refused(jobs, tmp_path, name):
    with pytest.raises(ValueError, match="micro_batch_size 3 on 1 ranks does not divide batch_size 4"):
        jobs(name, tmp_path / "run", batch_size=4, micro_batch_size=3)
