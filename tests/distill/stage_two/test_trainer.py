from collections.abc import Callable

import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from onex_distill.cache.plan import Bands, reuse_after_first
from onex_distill.distill.stage_two import trainer as stage_two
from onex_distill.distill.stage_two.trainer import AdversarialTrainer, Batch, CotrainingParams
from onex_distill.engine.launch import launch
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.sampling import sample_latents
from onex_distill.storage.model_folder import ModelFolder

SHIFT = 3.0
BAND = (1, 3)
KINDS = ["stage_two", "cotraining", "dial"]
Build = Callable[..., AdversarialTrainer]


@pytest.fixture
def build(jobs, ranks, tmp_path) -> Build:
    """Make a trainer of a job with some changes, always from the same weights; it starts with one discriminator update.

    Without its cache a co-training goes the plain path, with the losses of co-training.
    """

    def make(name: str, with_cache: bool = True, **changes) -> AdversarialTrainer:
        trainer = AdversarialTrainer(jobs(name, tmp_path, **{"discriminator_warmup": 1, "steps": 6} | changes), ranks)
        if trainer.cache is not None and not with_cache:
            trainer.cache.detach()
            trainer.cache = trainer.compensation_stepper = None
        return trainer

    return make


@pytest.fixture
def batch(prompts, noise) -> Batch:
    return Batch(prompts, noise, rows=torch.tensor([0, 3, 1]))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}


def grad_modes(transformer: nn.Module) -> list[bool]:
    modes: list[bool] = []
    transformer.register_forward_pre_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    return modes


@pytest.mark.parametrize(
    ("warmup", "updates", "expected"),
    [(0, 1, [1, 3, 5, 7, 9, 11]), (3, 2, [5, 8, 11]), (2, 3, [5, 9]), (20, 1, [])],
)
def test_the_schedule_of_generator_updates(build, warmup, updates, expected):
    trainer = build("stage_two", discriminator_warmup=warmup, discriminator_updates=updates)
    generator_steps = [step for step in range(12) if trainer.is_generator_update(step)]
    assert generator_steps == expected
    for step in range(12):
        assert trainer.generator_updates_before(step) == sum(g < step for g in generator_steps)


def test_fitting_comes_first(build):
    trainer = build("cotraining", fitting_steps=4, discriminator_warmup=2)
    generator_steps = [step for step in range(14) if trainer.is_generator_update(step)]
    assert generator_steps == [7, 9, 11, 13]
    for step in range(14):
        assert trainer.generator_updates_before(step) == sum(g < step for g in generator_steps)


def test_a_run_fits_then_trains(jobs, tmp_path):
    changes = {"steps": 6, "fitting_steps": 2, "discriminator_warmup": 1}
    history = pd.read_parquet(launch(jobs("cotraining", tmp_path, **changes)) / "losses.parquet")
    assert history["step"][history["residual_loss"].notna()].tolist() == [0, 1]
    assert history["step"][history["generator_loss"].notna()].tolist() == [4]
    assert history["step"][history["discriminator_loss"].notna()].tolist() == [2, 3, 5]


def test_fitting_changes_the_compensation_of_every_band_and_nothing_else(build, batch):
    trainer = build("dial", fitting_steps=2)
    student, compensation = snapshot(trainer.adapted), snapshot(trainer.cache.compensation)
    heads = snapshot(trainer.discriminator)
    trainer.fit_compensation(batch, 0, 1.0)
    moved = changed(trainer.cache.compensation, compensation)
    for start, stop in trainer.cache.compensation.bands:
        assert {f"{stream}.{start}_{stop}.down.weight" for stream in ("text", "image")} <= moved
    assert not changed(trainer.adapted, student)
    assert not changed(trainer.discriminator, heads)


def test_fitting_draws_new_noise_every_step(build, batch):
    trainer = build("cotraining", fitting_steps=2)
    first, again, other = (trainer._noise_like(batch.noise, step, "fitting noise") for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compensation_function": {"kind": "identity"}}, "compensation identity has nothing to fit"),
        ({"num_inference_steps": 1}, "a single step reuses nothing to fit to"),
    ],
)
def test_fitting_without_anything_to_fit_is_refused(cotraining_params, changes, message):
    fields = cotraining_params.model_dump() | {"fitting_steps": 2} | changes
    with pytest.raises(ValidationError, match=message):
        CotrainingParams.model_validate(fields)
    CotrainingParams.model_validate(fields | {"fitting_steps": 0})


def test_a_run_keeps_to_the_schedule(jobs, tmp_path):
    result = launch(jobs("stage_two", tmp_path, steps=6, discriminator_warmup=1))
    history = pd.read_parquet(result / "losses.parquet")
    assert history["step"][history["generator_loss"].notna()].tolist() == [2, 4]
    assert history["step"][history["discriminator_loss"].notna()].tolist() == [0, 1, 3, 5]


def take_path(trainer: AdversarialTrainer, batch: Batch) -> Tensor:
    return trainer.take_last_step(trainer.sample_before_last(batch), batch.prompts)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_last_step_alone_carries_gradient(build, batch, steps):
    trainer = build("stage_two", num_inference_steps=steps)
    modes = grad_modes(trainer.transformer)
    x0 = take_path(trainer, batch)
    assert modes == [False] * (steps - 1) + [True]
    assert x0.requires_grad


def test_training_samples_as_inference_does(build, batch):
    trainer = build("stage_two")
    expected = sample_latents(trainer.transformer, batch.noise, step_sigmas(2, SHIFT), batch.prompts)
    torch.testing.assert_close(take_path(trainer, batch).detach(), expected)


def test_training_samples_as_cached_inference_does(build, batch):
    trainer = build("cotraining")
    nn.init.normal_(trainer.cache.compensation.image["1_3"].down.weight)
    levels = step_sigmas(2, SHIFT)
    expected = sample_latents(
        trainer.transformer, batch.noise, levels, batch.prompts, before_step=trainer.cache.begin_step
    )
    trainer.cache.reset()
    uncached = sample_latents(trainer.transformer, batch.noise, levels, batch.prompts)
    x0 = take_path(trainer, batch).detach()
    torch.testing.assert_close(x0, expected)
    assert not torch.allclose(x0, uncached, atol=1e-3)


def test_a_generator_update_changes_the_adapters_only(build, batch):
    trainer = build("stage_two")
    before, heads = snapshot(trainer.adapted), snapshot(trainer.discriminator)
    autoencoder = snapshot(trainer.autoencoder)
    trainer.update_generator(batch, 2, 1.0)
    moved = changed(trainer.adapted, before)
    assert moved
    assert all("lora_" in name for name in moved)
    assert not changed(trainer.discriminator, heads)
    assert not changed(trainer.autoencoder, autoencoder)
    leftovers = [*trainer.discriminator.parameters(), *trainer.adapted.parameters()]
    assert all(parameter.grad is None for parameter in leftovers)


def test_a_discriminator_update_changes_the_heads_only(build, batch):
    trainer = build("cotraining")
    student, heads = snapshot(trainer.adapted), snapshot(trainer.discriminator)
    compensation = snapshot(trainer.cache.compensation)
    modes = grad_modes(trainer.transformer)
    trainer.update_discriminator(batch, 0, 1.0)
    assert changed(trainer.discriminator, heads) == set(heads)
    assert not changed(trainer.adapted, student)
    assert not changed(trainer.cache.compensation, compensation)
    assert modes == [False, False]


def test_the_compensation_warms_up_alone(build, batch):
    trainer = build("cotraining")
    student, compensation = snapshot(trainer.adapted), snapshot(trainer.cache.compensation)
    first, second = (step for step in range(6) if trainer.is_generator_update(step))
    _, norms = trainer.update_generator(batch, first, 1.0)
    assert changed(trainer.cache.compensation, compensation)
    assert not changed(trainer.adapted, student)
    assert not trainer.student_stepper.optimizer.state
    assert "student_grad_norm" not in norms
    compensation = snapshot(trainer.cache.compensation)
    _, norms = trainer.update_generator(batch, second, 1.0)
    assert changed(trainer.cache.compensation, compensation)
    moved = changed(trainer.adapted, student)
    assert moved
    assert all("lora_" in name for name in moved)
    assert norms["student_grad_norm"] > 0


def test_the_bands_adapters_learn_nothing_from_the_cached_last_step(build, batch):
    trainer = build("cotraining", compensation_warmup=0)
    take_path(trainer, batch).square().sum().backward()
    for index, block in enumerate(trainer.transformer.transformer_blocks):
        grads = [p.grad is not None for p in block.parameters() if p.requires_grad]
        assert any(grads) != (BAND[0] <= index < BAND[1])


def test_without_a_cache_the_output_loss_starts_at_zero(build, batch):
    trainer = build("cotraining", with_cache=False)
    means, _ = trainer.update_generator(batch, 2, 1.0)
    assert means["output_loss"] == 0.0


def test_the_output_loss_compares_with_the_uncached_start(build, batch):
    trainer = build("cotraining")
    nn.init.normal_(trainer.cache.compensation.image["1_3"].down.bias)
    levels = step_sigmas(2, SHIFT)
    target = sample_latents(trainer.transformer, batch.noise, levels, batch.prompts)
    x0 = sample_latents(trainer.transformer, batch.noise, levels, batch.prompts, before_step=trainer.cache.begin_step)
    means, _ = trainer.update_generator(batch, 2, 1.0)
    assert means["output_loss"] == pytest.approx(float((x0 - target).square().mean()), rel=1e-4)


def test_the_output_losss_target_ignores_what_the_adapters_learned(build, batch):
    trainer = build("cotraining", with_cache=False)
    x_t = trainer.sample_before_last(batch)
    start = trainer.target(x_t, batch.prompts).x0
    trainer.update_generator(batch, 4, 1.0)
    assert torch.equal(trainer.target(x_t, batch.prompts).x0, start)
    assert not torch.allclose(trainer.take_last_step(x_t, batch.prompts), start, atol=1e-4)


def test_the_output_loss_trains_the_compensation(build, batch):
    trainer = build("cotraining", adversarial_weight=0.0)
    before = snapshot(trainer.cache.compensation)
    _, norms = trainer.update_generator(batch, 2, 1.0)
    assert norms["compensation_grad_norm"] > 0
    assert "image.1_3.down.weight" in changed(trainer.cache.compensation, before)


@pytest.mark.parametrize("name", KINDS)
def test_resuming_equals_running_through(name, jobs, tmp_path, interrupt, assert_same_result):
    longer = {"steps": 6, "checkpoint_every": 3, "discriminator_warmup": 1}
    torch.manual_seed(1)
    whole = launch(jobs(name, tmp_path / "whole", **longer))
    torch.manual_seed(2)
    with interrupt(stage_two, 5):
        launch(jobs(name, tmp_path / "parts", **longer))
    assert (tmp_path / "parts/step-00000003").is_dir()
    assert_same_result(whole, launch(jobs(name, tmp_path / "parts", **longer)))
    ends = [tmp_path / part / "step-00000006/rank-00000.safetensors" for part in ("whole", "parts")]
    assert ends[0].read_bytes() == ends[1].read_bytes()  # the discriminator and the optimizers too


@pytest.mark.parametrize("name", KINDS)
def test_the_seed_fixes_the_weights(name, jobs, tmp_path, assert_same_result):
    torch.manual_seed(1)
    first = launch(jobs(name, tmp_path / "first"))
    torch.manual_seed(2)
    assert_same_result(first, launch(jobs(name, tmp_path / "same")))
    other = launch(jobs(name, tmp_path / "other", seed=7))
    with pytest.raises(AssertionError):
        assert_same_result(first, other)


@pytest.mark.parametrize("name", KINDS)
def test_a_finished_run_leaves_a_plain_student_that_samples_as_the_trained_one(
    name, jobs, ranks, inputs, batch, tmp_path
):
    job = jobs(name, tmp_path / "run")
    result, trainer = launch(job), AdversarialTrainer(job, ranks)
    for step in range(4):
        trainer.update(step)
    student = ModelFolder(path=result / "student", class_name=job.student.class_name).load()
    start = inputs.teacher.transformer.load()
    assert student.state_dict().keys() == start.state_dict().keys()
    assert any(not torch.equal(*pair) for pair in zip(student.parameters(), start.parameters(), strict=True))
    if trainer.cache is not None:
        folder = ModelFolder(path=result / "compensation", class_name="onex_distill.Compensation")
        compensation = folder.load()
        pairs = zip(compensation.parameters(), trainer.cache.compensation.parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
        assert compensation.candidates == job.params.candidates
        trainer.cache.detach()
    levels = step_sigmas(2, SHIFT)
    expected = sample_latents(trainer.transformer, batch.noise, levels, batch.prompts)
    torch.testing.assert_close(sample_latents(student, batch.noise, levels, batch.prompts), expected)


def test_a_step_is_described_by_its_seed_and_rows(build):
    trainer = build("stage_two")
    assert trainer.describe(2) == f"seed 6, rows {trainer.references.rows(2, 3).tolist()} of the stored references"


def test_a_band_that_the_transformer_cannot_skip_is_refused_before_training(jobs, tmp_path):
    with pytest.raises(ValueError, match=r"band \[0, 3\] must be a non-empty half-open range"):
        launch(jobs("cotraining", tmp_path, candidates=(((0, 3),),)))


def calls(monkeypatch, owner, name: str) -> list[int]:
    """One entry a call of a method, which still does its work."""
    seen: list[int] = []
    method = getattr(owner, name)

    def counted(*args, **kwargs):
        seen.append(1)
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return seen


def test_what_has_no_weight_is_not_computed(build, batch, monkeypatch):
    trainer = build("cotraining", adversarial_weight=0.0)
    targets, heads = calls(monkeypatch, trainer, "target"), calls(monkeypatch, trainer.discriminator, "forward")
    references = calls(monkeypatch, trainer.references, "images")
    assert set(trainer.generator_terms(batch)) == {"output_loss"}
    assert (len(targets), len(heads), len(references)) == (1, 0, 0)
    trainer = build("cotraining", output_weight=0.0)
    targets, references = calls(monkeypatch, trainer, "target"), calls(monkeypatch, trainer.references, "images")
    assert set(trainer.generator_terms(batch)) == {"generator_loss"}
    assert (len(targets), len(references)) == (0, 0)


def test_the_feature_loss_compares_the_last_steps_tokens(build, batch):
    trainer = build("cotraining", feature_weight=0.3, output_weight=0.0, adversarial_weight=0.0)
    nn.init.normal_(trainer.cache.compensation.image["1_3"].down.bias)
    kept: list[Tensor] = []
    trainer.transformer.norm_out.register_forward_pre_hook(lambda module, args: kept.append(args[0].detach()))
    weight, loss = trainer.generator_terms(batch)["feature_loss"]
    uncached, cached = kept[1], kept[2]  # both take the same latents through the last step
    assert weight == 0.3
    torch.testing.assert_close(loss.detach(), (cached - uncached).square().mean())
    before = snapshot(trainer.cache.compensation)
    trainer.update_generator(batch, 2, 1.0)
    assert "image.1_3.down.weight" in changed(trainer.cache.compensation, before)


def test_every_loss_and_penalty_trains(jobs, tmp_path):
    history = pd.read_parquet(launch(jobs("dial", tmp_path)) / "losses.parquet")
    of_discriminator = ["discriminator_loss", "r1_penalty", "r2_penalty", "approximate_r1_penalty"]
    of_generator = ["generator_loss", "perceptual_loss", "output_loss", "feature_loss"]
    assert history.iloc[0][of_discriminator].notna().all()
    assert history.iloc[1][of_generator].notna().all()


def test_without_adversarial_weight_no_update_is_the_discriminators(jobs, tmp_path):
    history = pd.read_parquet(launch(jobs("cotraining", tmp_path, adversarial_weight=0.0)) / "losses.parquet")
    assert history["output_loss"].notna().all()
    assert not {"discriminator_loss", "generator_loss"} & set(history.columns)


def test_a_generator_without_any_loss_is_refused(jobs, tmp_path):
    with pytest.raises(ValueError, match="every weight of the generator's losses is zero"):
        jobs("stage_two", tmp_path, adversarial_weight=0.0)


DIAL = ((BAND,), ((2, 3),), ())


def test_bands_are_drawn_by_seed_and_step(build):
    def drawn(seed: int) -> list[Bands]:
        trainer = build("cotraining", candidates=DIAL, seed=seed)
        return [trainer.plan(step).bands for step in range(60)]

    first = drawn(6)
    assert set(first) == set(DIAL)
    assert drawn(6) == first
    assert drawn(7) != first


def test_an_update_goes_the_path_of_its_bands(build, batch):
    trainer = build("cotraining", candidates=DIAL, compensation_warmup=0)
    for step in range(12):
        trainer.update(step)
        assert trainer.cache.plan == trainer.plan(step)
    moved = {name for name, p in trainer.cache.compensation.named_parameters() if "down" in name and p.abs().sum() > 0}
    assert {name.split(".")[1] for name in moved} == {"1_3", "2_3"}


def test_an_update_without_bands_leaves_the_compensation(build, batch):
    trainer = build("cotraining", candidates=DIAL, compensation_warmup=0)
    compensation, student = snapshot(trainer.cache.compensation), snapshot(trainer.adapted)
    trainer.cache.use(reuse_after_first((), 2))
    trainer.update_generator(batch, 2, 1.0)
    assert not changed(trainer.cache.compensation, compensation)
    assert changed(trainer.adapted, student)


def test_a_student_trains_under_plain_caching(jobs, tmp_path):
    plain = {"compensation_function": {"kind": "identity"}, "compensation_warmup": 0}
    result = launch(jobs("cotraining", tmp_path, **plain))
    assert "compensation_grad_norm" not in pd.read_parquet(result / "losses.parquet")
    folder = ModelFolder(path=result / "compensation", class_name="onex_distill.Compensation")
    assert folder.load().candidates == ((BAND,),)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (((),), "candidates holds no band"),
        ((), "candidates holds no band"),
        ((((1, 3), (2, 3)),), r"bands \[1, 3\] and \[2, 3\] overlap"),
        ((((2, 2),),), r"empty range \[2, 2\]"),
    ],
)
def test_bad_candidates_are_refused(jobs, tmp_path, candidates, message):
    with pytest.raises(ValueError, match=message):
        jobs("cotraining", tmp_path, candidates=candidates)
