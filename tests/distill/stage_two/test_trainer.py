import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from onex_distill.distill.cotraining.trainer import CotrainingTrainer
from onex_distill.distill.stage_two import job as stage_two
from onex_distill.distill.stage_two.schedule import Phase
from onex_distill.distill.stage_two.trainer import AdversarialTrainer
from onex_distill.engine.launch import launch
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.sampling import sample_latents
from onex_distill.storage.model_folder import ModelFolder
from support import changed, grad_modes, snapshot, trainer_of

SHIFT = 3.0
WEIGHTS = "diffusion_pytorch_model.safetensors"
KINDS = ["stage_two", "cotraining", "dial"]


def test_a_run_keeps_to_the_schedule(jobs, tmp_path):
    result = launch(jobs("stage_two", tmp_path, steps=6, discriminator_warmup=1))
    history = pd.read_parquet(result / "losses.parquet")
    assert history["step"][history["generator_loss"].notna()].tolist() == [1, 3, 5]
    assert history["step"][history["discriminator_loss"].notna()].tolist() == [0, 2, 4]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_last_step_alone_carries_gradient(build, batch, steps):
    trainer = build("stage_two", num_inference_steps=steps)
    modes = grad_modes(trainer.transformer)
    x0 = trainer.path.sample(batch.noise, batch.prompts)
    assert modes == [False] * (steps - 1) + [True]
    assert x0.requires_grad


def test_training_samples_as_inference_does(build, batch):
    trainer = build("stage_two")
    expected = sample_latents(trainer.transformer, batch.noise, step_sigmas(2, SHIFT), batch.prompts)
    torch.testing.assert_close(trainer.path.sample(batch.noise, batch.prompts).detach(), expected)


def test_a_generator_update_changes_the_adapters_only(build, batch):
    trainer = build("stage_two")
    before, heads = snapshot(trainer.adapted), snapshot(trainer.judges.discriminator)
    autoencoder = snapshot(trainer.autoencoder)
    trainer.update_generator(Phase.GENERATOR, batch, 2)
    moved = changed(trainer.adapted, before)
    assert moved
    assert all("lora_" in name for name in moved)
    assert not changed(trainer.judges.discriminator, heads)
    assert not changed(trainer.autoencoder, autoencoder)
    leftovers = [*trainer.judges.discriminator.parameters(), *trainer.adapted.parameters()]
    assert all(parameter.grad is None for parameter in leftovers)


def test_every_rate_ends_with_the_run(build):
    """The optimizers of the fixtures fall to zero along a cosine, each in as many updates as it has."""
    trainer = build("stage_two", steps=6)
    for step in range(6):
        trainer.update(step)
    for stepper in (trainer.student_stepper, trainer.discriminator_stepper):
        assert stepper.scheduler.last_epoch == 3
        assert stepper.scheduler.get_last_lr() == pytest.approx([0], abs=1e-12)


def test_the_heads_updates_alone_refine_their_spectral_norms(build, batch):
    trainer = build("stage_two")

    def norms() -> list[Tensor]:
        buffers = trainer.judges.discriminator.named_buffers()
        return [buffer.clone() for name, buffer in buffers if "parametrizations" in name]

    before = norms()
    assert before
    trainer.update_generator(Phase.GENERATOR, batch, 1)
    assert all(map(torch.equal, norms(), before))
    trainer.update_discriminator(batch, 2)
    assert not all(map(torch.equal, norms(), before))


def test_noise_is_new_in_every_step_and_the_same_for_rows_alone(build):
    trainer, images = build("stage_two"), torch.zeros(3, 3, 8, 8)
    noise = trainer.noise_like(images, 5, "penalty noise", slice(0, 3))
    assert torch.equal(trainer.noise_like(images[1:], 5, "penalty noise", slice(1, 3)), noise[1:])
    for step, purpose in ((6, "penalty noise"), (5, "other noise")):
        assert not torch.equal(trainer.noise_like(images, step, purpose, slice(0, 3)), noise)


def test_without_a_cache_the_output_loss_starts_at_zero(build, batch):
    trainer = build("stage_two", output_weight=0.5)
    means, _ = trainer.update_generator(Phase.GENERATOR, batch, 2)
    assert means["output_loss"] == 0.0


def test_the_output_losss_target_ignores_what_the_adapters_learned(build, batch):
    trainer = build("stage_two", output_weight=0.5)
    x_t = trainer.path.before_last(batch.noise, batch.prompts)
    start = trainer.target(x_t, batch.prompts).x0
    trainer.update_generator(Phase.GENERATOR, batch, 2)
    assert torch.equal(trainer.target(x_t, batch.prompts).x0, start)
    assert not torch.allclose(trainer.path.last_step(x_t, batch.prompts), start, atol=1e-4)


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
    one, another = (load_file(folder / "student" / WEIGHTS) for folder in (first, other))
    assert any(not torch.equal(one[key], another[key]) for key in one)


@pytest.mark.parametrize("name", KINDS)
def test_a_finished_run_leaves_a_plain_student_that_samples_as_the_trained_one(
    name, jobs, ranks, inputs, batch, tmp_path
):
    job = jobs(name, tmp_path / "run")
    result, trainer = launch(job), trainer_of(job, ranks)
    for step in range(4):
        trainer.update(step)
    student = ModelFolder(path=result / "student", class_name=job.student.class_name).load()
    start = inputs.teacher.transformer.load()
    assert student.state_dict().keys() == start.state_dict().keys()
    assert any(not torch.equal(*pair) for pair in zip(student.parameters(), start.parameters(), strict=True))
    if isinstance(trainer, CotrainingTrainer):
        folder = ModelFolder(path=result / "compensation", class_name="onex_distill.Compensation")
        compensation = folder.load()
        pairs = zip(compensation.parameters(), trainer.compensation.parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
        assert compensation.candidates == job.params.candidates
        trainer.path.cache.detach()
    levels = step_sigmas(2, SHIFT)
    expected = sample_latents(trainer.transformer, batch.noise, levels, batch.prompts)
    torch.testing.assert_close(sample_latents(student, batch.noise, levels, batch.prompts), expected)


def test_a_step_is_described_by_its_seed_and_rows(build):
    trainer = build("stage_two")
    assert trainer.describe(2) == f"seed 6, rows {trainer.references.rows(2, 3).tolist()} of the stored references"


def test_a_generator_without_any_loss_is_refused(jobs, tmp_path):
    with pytest.raises(ValueError, match="every weight of the generator's losses is zero"):
        jobs("stage_two", tmp_path, adversarial_weight=0.0)


def test_online_references_are_made_in_the_reference_generators_own_steps(jobs, ranks, tmp_path, with_reference_split):
    job = jobs("stage_two", tmp_path, embeddings=with_reference_split, num_inference_steps=2)
    params = job.params.model_copy(update={"references": "online"})
    references = trainer_of(job.model_copy(update={"params": params}), ranks).references
    torch.testing.assert_close(references.levels, step_sigmas(4, SHIFT))


def built(trainer: AdversarialTrainer) -> set[str]:
    """The networks that were built beside the student."""
    networks = {
        "autoencoder": trainer.autoencoder,
        "backbone": trainer.judges.backbone,
        "discriminator": trainer.judges.discriminator,
        "reference generator": trainer.references.transformer,
    }
    return {name for name, network in networks.items() if network is not None}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"adversarial_weight": 1.0}, {"autoencoder", "backbone", "discriminator", "reference generator"}),
        ({"perceptual_weight": 1.0}, {"autoencoder", "backbone", "reference generator"}),
        ({"output_weight": 1.0}, set()),
        ({"feature_weight": 1.0}, set()),
    ],
)
def test_no_network_is_built_that_no_weight_needs(
    jobs, ranks, tmp_path, with_reference_split, batch, weights, expected
):
    job = jobs("stage_two", tmp_path, embeddings=with_reference_split, **{"adversarial_weight": 0.0} | weights)
    params = job.params.model_copy(update={"references": "online"})
    trainer = trainer_of(job.model_copy(update={"params": params}), ranks)
    assert built(trainer) == expected
    assert ("discriminator" in trainer.states()) == ("discriminator" in expected)
    if "backbone" not in expected:
        means, norms = trainer.update_generator(Phase.GENERATOR, batch, 2)
        assert set(means) | set(norms) == {*(f"{name.partition('_')[0]}_loss" for name in weights), "student_grad_norm"}
