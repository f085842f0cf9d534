import math

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from onex_distill.cache.plan import Bands, reuse_after_first
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.stage_two import job as stage_two_job
from onex_distill.distill.stage_two.schedule import Phase
from onex_distill.engine.launch import launch
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.sampling import sample_latents
from onex_distill.parameters import ParameterError
from onex_distill.storage.model_folder import ModelFolder
from support import changed, grad_modes, snapshot

SHIFT = 3.0
BAND = (1, 3)
DIAL = ((BAND,), ((2, 3),), ())


def test_a_run_fits_then_trains(jobs, tmp_path):
    changes = {"steps": 6, "fitting_steps": 2, "discriminator_warmup": 1}
    history = pd.read_parquet(launch(jobs("cotraining", tmp_path, **changes)) / "losses.parquet")
    assert history["step"][history["residual_loss"].notna()].tolist() == [0, 1]
    assert history["step"][history["generator_loss"].notna()].tolist() == [3, 5]
    assert history["step"][history["discriminator_loss"].notna()].tolist() == [2, 4]


def test_fitting_changes_the_compensation_of_every_band_and_nothing_else(build):
    trainer = build("dial", fitting_steps=2)
    student, compensation = snapshot(trainer.adapted), snapshot(trainer.compensation)
    heads = snapshot(trainer.judges.discriminator)
    trainer.fit_compensation(0)
    moved = changed(trainer.compensation, compensation)
    for start, stop in trainer.compensation.bands:
        assert {f"{stream}.{start}_{stop}.down.weight" for stream in ("text", "image")} <= moved
    assert not changed(trainer.adapted, student)
    assert not changed(trainer.judges.discriminator, heads)


def test_every_rate_ends_with_the_run(build):
    """Each optimizer takes its own updates, and those of the student begin after the compensation's warm-up."""
    trainer = build("cotraining", steps=10, fitting_steps=2, discriminator_warmup=0, compensation_warmup=1)
    for step in range(10):
        trainer.update(step)
    updates = {"student": 3, "discriminator": 4, "compensation": 2 + 4}
    for name, count in updates.items():
        scheduler = getattr(trainer, f"{name}_stepper").scheduler
        assert scheduler.last_epoch == count, name
        assert scheduler.get_last_lr() == pytest.approx([0], abs=1e-12), name


def test_fitting_ends_with_its_residuals(build):
    trainer = build("cotraining", fitting_steps=1)
    trainer.update(0)
    assert trainer.residuals is not None
    trainer.update(1)
    assert trainer.residuals is None


def test_the_error_on_residuals_that_are_not_fitted_is_watched(jobs, tmp_path):
    changes = {"steps": 6, "fitting_steps": 5, "discriminator_warmup": 1, "log_every": 2}
    history = pd.read_parquet(launch(jobs("cotraining", tmp_path, **changes)) / "losses.parquet")
    watched = history["held_out_residual_loss"]
    assert history["step"][watched.notna()].tolist() == [1, 3, 4]


def test_fitting_goes_on_from_a_checkpoint_as_if_nothing_had_happened(jobs, tmp_path, interrupt, assert_same_result):
    changes = {"steps": 4, "fitting_steps": 4, "fitting_batches": 2}
    whole = launch(jobs("cotraining", tmp_path / "whole", **changes))
    halved = jobs("cotraining", tmp_path / "halved", **changes)
    with interrupt(stage_two_job, 2):
        launch(halved)
    assert_same_result(whole, launch(halved))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compensation_function": {"kind": "identity"}}, "compensation identity has nothing to fit"),
        ({"num_inference_steps": 1}, "a single step reuses nothing to fit to"),
    ],
)
def test_fitting_without_anything_to_fit_is_refused(cotraining_params, changes, message):
    fields = cotraining_params.model_dump() | {"fitting_steps": 2} | changes
    with pytest.raises(ParameterError, match=message):
        CotrainingParams.model_validate(fields)
    CotrainingParams.model_validate(fields | {"fitting_steps": 0})


def test_training_samples_as_cached_inference_does(build, batch):
    trainer = build("cotraining")
    nn.init.normal_(trainer.compensation.image["1_3"].down.weight)
    levels = step_sigmas(2, SHIFT)
    expected = sample_latents(
        trainer.transformer, batch.noise, levels, batch.prompts, before_step=trainer.path.cache.begin_step
    )
    trainer.path.cache.reset()
    uncached = sample_latents(trainer.transformer, batch.noise, levels, batch.prompts)
    x0 = trainer.path.sample(batch.noise, batch.prompts).detach()
    torch.testing.assert_close(x0, expected)
    assert not torch.allclose(x0, uncached, atol=1e-3)


def test_a_discriminator_update_changes_the_heads_only(build, batch):
    trainer = build("cotraining")
    student, heads = snapshot(trainer.adapted), snapshot(trainer.judges.discriminator)
    compensation = snapshot(trainer.compensation)
    modes = grad_modes(trainer.transformer)
    trainer.update_discriminator(batch, 0)
    assert changed(trainer.judges.discriminator, heads) == set(heads)
    assert not changed(trainer.adapted, student)
    assert not changed(trainer.compensation, compensation)
    assert modes == [False, False]


def test_the_compensation_warms_up_alone(build, batch):
    trainer = build("cotraining")
    student, compensation = snapshot(trainer.adapted), snapshot(trainer.compensation)
    _, norms = trainer.update_generator(Phase.WARM_UP, batch, 2)
    assert changed(trainer.compensation, compensation)
    assert not changed(trainer.adapted, student)
    assert not trainer.student_stepper.optimizer.state
    assert "student_grad_norm" not in norms
    compensation = snapshot(trainer.compensation)
    _, norms = trainer.update_generator(Phase.GENERATOR, batch, 2)
    assert changed(trainer.compensation, compensation)
    moved = changed(trainer.adapted, student)
    assert moved
    assert all("lora_" in name for name in moved)
    assert norms["student_grad_norm"] > 0


def test_the_bands_adapters_learn_nothing_from_the_cached_last_step(build, batch):
    trainer = build("cotraining", compensation_warmup=0)
    trainer.path.sample(batch.noise, batch.prompts).square().sum().backward()
    for index, block in enumerate(trainer.transformer.transformer_blocks):
        grads = [p.grad is not None for p in block.parameters() if p.requires_grad]
        assert any(grads) != (BAND[0] <= index < BAND[1])


def test_the_output_loss_compares_with_the_uncached_start(build, batch):
    trainer = build("cotraining")
    nn.init.normal_(trainer.compensation.image["1_3"].down.bias)
    levels = step_sigmas(2, SHIFT)
    target = sample_latents(trainer.transformer, batch.noise, levels, batch.prompts)
    x0 = sample_latents(
        trainer.transformer, batch.noise, levels, batch.prompts, before_step=trainer.path.cache.begin_step
    )
    means, _ = trainer.update_generator(Phase.GENERATOR, batch, 2)
    assert means["output_loss"] == pytest.approx(float((x0 - target).square().mean()), rel=1e-4)


def test_the_output_loss_trains_the_compensation(build, batch):
    trainer = build("cotraining", adversarial_weight=0.0)
    before = snapshot(trainer.compensation)
    trainer.compensation_stepper.optimizer.param_groups[0]["lr"] = 1e-5  # a step that cannot go too far
    (first, norms), (second, _) = (trainer.update_generator(Phase.WARM_UP, batch, 2) for _ in range(2))
    assert norms["compensation_grad_norm"] > 0
    assert "image.1_3.down.weight" in changed(trainer.compensation, before)
    assert 0 < second["output_loss"] < first["output_loss"]


def test_a_band_that_the_transformer_cannot_skip_is_refused_before_training(jobs, tmp_path):
    with pytest.raises(ValueError, match=r"band \[0, 3\] must be a non-empty half-open range"):
        launch(jobs("cotraining", tmp_path, candidates=(((0, 3),),)))


def calls(monkeypatch, owner, name: str) -> list[int]:
    """One entry per call of a method, which still does its work."""
    seen: list[int] = []
    method = getattr(owner, name)

    def counted(*args, **kwargs):
        seen.append(1)
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return seen


def test_what_has_no_weight_is_not_computed(build, batch, monkeypatch):
    trainer = build("cotraining", adversarial_weight=0.0)
    targets, references = calls(monkeypatch, trainer, "target"), calls(monkeypatch, trainer.references, "images")
    assert set(trainer.generator_terms(batch)) == {"output_loss"}
    assert (len(targets), len(references)) == (1, 0)
    trainer = build("cotraining", output_weight=0.0)
    targets, references = calls(monkeypatch, trainer, "target"), calls(monkeypatch, trainer.references, "images")
    assert set(trainer.generator_terms(batch)) == {"generator_loss"}
    assert (len(targets), len(references)) == (0, 0)


def test_the_feature_loss_compares_the_last_steps_tokens(build, batch):
    trainer = build("cotraining", feature_weight=0.3, output_weight=0.0, adversarial_weight=0.0)
    nn.init.normal_(trainer.compensation.image["1_3"].down.bias)
    kept: list[Tensor] = []
    trainer.transformer.norm_out.register_forward_pre_hook(lambda module, args: kept.append(args[0].detach()))
    weight, loss = trainer.generator_terms(batch)["feature_loss"]
    uncached, cached = kept[1], kept[2]  # both take the same latents through the last step
    assert weight == 0.3
    torch.testing.assert_close(loss.detach(), (cached - uncached).square().mean())
    before = snapshot(trainer.compensation)
    trainer.update_generator(Phase.GENERATOR, batch, 2)
    assert "image.1_3.down.weight" in changed(trainer.compensation, before)


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
    for step in range(20):
        trainer.update(step)
        assert trainer.path.cache.plan == trainer.plan(step)
    moved = {name for name, p in trainer.compensation.named_parameters() if "down" in name and p.abs().sum() > 0}
    assert {name.split(".")[1] for name in moved} == {"1_3", "2_3"}


def test_an_update_without_bands_leaves_the_compensation(build, batch):
    trainer = build("cotraining", candidates=DIAL, compensation_warmup=0)
    compensation, student = snapshot(trainer.compensation), snapshot(trainer.adapted)
    trainer.path.cache.use(reuse_after_first((), 2))
    trainer.update_generator(Phase.GENERATOR, batch, 2)
    assert not changed(trainer.compensation, compensation)
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


def test_student_and_compensation_are_clipped_by_the_norm_of_both(build, batch, monkeypatch):
    trainer = build("cotraining", adversarial_weight=0.0, compensation_warmup=0)
    clipped: list[Tensor] = []
    for stepper in (trainer.student_stepper, trainer.compensation_stepper):
        stepper.clip_norm = 1e-5
        monkeypatch.setattr(stepper.optimizer, "step", lambda s=stepper: clipped.append(norm_of(s.parameters)))
    _, norms = trainer.update_generator(Phase.GENERATOR, batch, 2)
    equal = norms["student_grad_norm"] / norms["compensation_grad_norm"]  # or one would hardly differ from both
    for parameter in trainer.compensation.parameters():
        parameter.register_hook(lambda gradient: 2 * equal * gradient)
    clipped.clear()
    _, norms = trainer.update_generator(Phase.GENERATOR, batch, 2)
    both = math.hypot(*norms.values())
    assert norms["compensation_grad_norm"] == pytest.approx(2 * norms["student_grad_norm"], rel=1e-3)
    assert min(norms.values()) > 1e-4
    found = sorted(norm.item() for norm in clipped)
    assert found == pytest.approx([norm / both * 1e-5 for norm in sorted(norms.values())], rel=1e-2)


def norm_of(parameters: list[nn.Parameter]) -> Tensor:
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
