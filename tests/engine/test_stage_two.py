from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from onex_distill.engine import stage_two
from onex_distill.engine.stage_two import (
    AdversarialParams,
    AdversarialTrainer,
    Batch,
    CotrainingParams,
    draw_batch,
    train_adversarially,
)
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.block_cache import BlockCache
from onex_distill.models.cache_plan import reuse_after_first
from onex_distill.models.compensation import Compensation, FunctionParams
from onex_distill.models.discriminator import Discriminator
from onex_distill.models.lora import LoraParams
from onex_distill.models.noise import noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import sample_latents
from onex_distill.models.tiny import ArchitectureParams, build_autoencoder, build_transformer, seeded
from onex_distill.shapes.networks import ShapesReader
from onex_distill.storage.tensor_table import TensorTable

SHIFT = 3.0
BAND = (1, 3)
Build = Callable[..., AdversarialTrainer]


@pytest.fixture
def params(optimizer, loop) -> AdversarialParams:
    return AdversarialParams(
        seed=6,
        num_inference_steps=2,
        batch_size=3,
        lora=LoraParams(rank=2, alpha=2),
        student=optimizer,
        discriminator=optimizer,
        discriminator_hidden=4,
        discriminator_warmup=1,
        discriminator_updates=1,
        label_smoothing=0.8,
        adversarial_weight=1.0,
        loop=loop.model_copy(update={"steps": 6, "checkpoint_every": 3}),
    )


@pytest.fixture
def cached(params, optimizer) -> CotrainingParams:
    return CotrainingParams(
        **dict(params),
        cached_blocks=BAND,
        compensation_function=FunctionParams(kind="residual_mlp"),
        compensation=optimizer,
        compensation_warmup=1,
        output_weight=0.5,
    )


@pytest.fixture
def references() -> TensorTable:
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    index = pd.DataFrame({"prompt_row": [3, 1, 0, 2, 1], "noise_seed": range(40, 45)})
    return TensorTable(index, {"latent": latents})


@pytest.fixture
def build(architecture: ArchitectureParams) -> Build:
    """Make a trainer, always from the same weights; co-training parameters bring the cache along."""

    def make(params: AdversarialParams, with_cache: bool = True) -> AdversarialTrainer:
        with seeded(4):
            student = build_transformer(architecture).eval()
            autoencoder = build_autoencoder(architecture)
            autoencoder.register_to_config(shift_factor=0.1, scaling_factor=1.5)
            discriminator = Discriminator(ShapesReader(channels=(8, 8), feature_dim=8), params.discriminator_hidden)
            cache = None
            if isinstance(params, CotrainingParams) and with_cache:
                compensation = Compensation(16, [[BAND]], **params.compensation_function.model_dump())
                cache = BlockCache(student, reuse_after_first([BAND], 2), compensation).attach()
            return AdversarialTrainer(student, autoencoder, discriminator, SHIFT, params, cache)

    return make


@pytest.fixture
def batch(prompts, noise) -> Batch:
    return Batch(prompts, noise, reference=0.5 * noise.flip(0))


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
def test_the_schedule_of_generator_updates(build, params, warmup, updates, expected):
    trainer = build(params.model_copy(update={"discriminator_warmup": warmup, "discriminator_updates": updates}))
    generator_steps = [step for step in range(12) if trainer.is_generator_update(step)]
    assert generator_steps == expected
    for step in range(12):
        assert trainer.generator_updates_before(step) == sum(g < step for g in generator_steps)


def test_a_run_keeps_to_the_schedule(tmp_path, build, params, prompt_tables, references):
    _, history = train_adversarially(build(params), prompt_tables.prompts, references, tmp_path)
    assert history["step"][history["generator_loss"].notna()].tolist() == [2, 4]
    assert history["step"][history["discriminator_loss"].notna()].tolist() == [0, 1, 3, 5]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_last_step_alone_carries_gradient(build, params, batch, steps):
    trainer = build(params.model_copy(update={"num_inference_steps": steps}))
    modes = grad_modes(trainer.transformer)
    x0 = trainer.sample_with_gradient(batch)
    assert modes == [False] * (steps - 1) + [True]
    assert x0.requires_grad


def test_training_samples_as_inference_does(build, params, batch):
    trainer = build(params)
    expected = sample_latents(trainer.transformer, batch.noise, step_sigmas(2, SHIFT), batch.prompts)
    torch.testing.assert_close(trainer.sample_with_gradient(batch).detach(), expected)


def test_training_samples_as_cached_inference_does(build, cached, batch):
    trainer = build(cached)
    nn.init.normal_(trainer.cache.compensation.image["1_3"].down.weight)
    levels = step_sigmas(2, SHIFT)
    expected = sample_latents(
        trainer.transformer, batch.noise, levels, batch.prompts, before_step=trainer.cache.begin_step
    )
    trainer.cache.reset()
    uncached = sample_latents(trainer.transformer, batch.noise, levels, batch.prompts)
    x0 = trainer.sample_with_gradient(batch).detach()
    torch.testing.assert_close(x0, expected)
    assert not torch.allclose(x0, uncached, atol=1e-3)


def test_a_generator_update_changes_the_adapters_only(build, params, batch):
    trainer = build(params)
    before, heads = snapshot(trainer.adapted), snapshot(trainer.discriminator)
    autoencoder = snapshot(trainer.autoencoder)
    trainer.update_generator(batch, step=2)
    moved = changed(trainer.adapted, before)
    assert moved
    assert all("lora_" in name for name in moved)
    assert not changed(trainer.discriminator, heads)
    assert not changed(trainer.autoencoder, autoencoder)
    leftovers = [*trainer.discriminator.parameters(), *trainer.adapted.parameters()]
    assert all(parameter.grad is None for parameter in leftovers)


def test_a_discriminator_update_changes_the_heads_only(build, cached, batch):
    trainer = build(cached)
    student, heads = snapshot(trainer.adapted), snapshot(trainer.discriminator)
    compensation = snapshot(trainer.cache.compensation)
    modes = grad_modes(trainer.transformer)
    trainer.update_discriminator(batch)
    assert changed(trainer.discriminator, heads) == set(heads)
    assert not changed(trainer.adapted, student)
    assert not changed(trainer.cache.compensation, compensation)
    assert modes == [False, False]


def test_the_compensation_warms_up_alone(build, cached, batch):
    trainer = build(cached)
    student, compensation = snapshot(trainer.adapted), snapshot(trainer.cache.compensation)
    first, second = (step for step in range(6) if trainer.is_generator_update(step))
    values = trainer.update_generator(batch, first)
    assert changed(trainer.cache.compensation, compensation)
    assert not changed(trainer.adapted, student)
    assert not trainer.student_stepper.optimizer.state
    assert "student_grad_norm" not in values
    compensation = snapshot(trainer.cache.compensation)
    values = trainer.update_generator(batch, second)
    assert changed(trainer.cache.compensation, compensation)
    moved = changed(trainer.adapted, student)
    assert moved
    assert all("lora_" in name for name in moved)
    assert values["student_grad_norm"] > 0


def test_the_bands_adapters_learn_nothing_from_the_cached_last_step(build, cached, batch):
    trainer = build(cached.model_copy(update={"compensation_warmup": 0}))
    trainer.sample_with_gradient(batch).square().sum().backward()
    for index, block in enumerate(trainer.transformer.transformer_blocks):
        grads = [p.grad is not None for p in block.parameters() if p.requires_grad]
        assert any(grads) != (BAND[0] <= index < BAND[1])


def test_without_a_cache_the_output_loss_starts_at_zero(build, cached, batch):
    trainer = build(cached, with_cache=False)
    assert trainer.update_generator(batch, step=2)["output_loss"] == 0.0


def test_the_output_loss_compares_with_the_uncached_start(build, cached, batch):
    trainer = build(cached)
    nn.init.normal_(trainer.cache.compensation.image["1_3"].down.bias)
    levels = step_sigmas(2, SHIFT)
    target = sample_latents(trainer.transformer, batch.noise, levels, batch.prompts)
    x0 = sample_latents(trainer.transformer, batch.noise, levels, batch.prompts, before_step=trainer.cache.begin_step)
    values = trainer.update_generator(batch, step=2)
    assert values["output_loss"] == pytest.approx(float((x0 - target).square().mean()), rel=1e-4)


def test_the_output_losss_target_ignores_what_the_adapters_learned(build, cached, batch):
    trainer = build(cached, with_cache=False)
    start = trainer.output_target(batch)
    trainer.update_generator(batch, step=4)
    assert torch.equal(trainer.output_target(batch), start)
    assert not torch.allclose(trainer.sample_with_gradient(batch), start, atol=1e-4)


def test_the_output_loss_trains_the_compensation(build, cached, batch):
    trainer = build(cached.model_copy(update={"adversarial_weight": 0.0}))
    before = snapshot(trainer.cache.compensation)
    values = trainer.update_generator(batch, step=2)
    assert values["compensation_grad_norm"] > 0
    assert "image.1_3.down.weight" in changed(trainer.cache.compensation, before)


def test_a_student_trains_under_plain_caching(tmp_path, build, cached, prompt_tables, references):
    identity = {"compensation_function": FunctionParams(kind="identity"), "compensation_warmup": 0}
    trainer = build(cached.model_copy(update=identity))
    before = snapshot(trainer.adapted)
    assert trainer.compensation_stepper is None
    trainer.update_generator(draw_batch(trainer.transformer, prompt_tables.prompts, references, cached, 0), step=2)
    assert changed(trainer.adapted, before)


@pytest.mark.parametrize("with_cache", [False, True], ids=["plain", "cached"])
def test_resuming_equals_running_through(
    tmp_path, build, params, cached, prompt_tables, references, interrupt, assert_same_run, with_cache
):
    def run(name: str):
        trainer = build(cached if with_cache else params)
        student, history = train_adversarially(trainer, prompt_tables.prompts, references, tmp_path / name)
        parts = [student, trainer.discriminator]
        return nn.ModuleList([*parts, trainer.cache.compensation] if with_cache else parts), history

    torch.manual_seed(1)
    whole = run("whole")
    torch.manual_seed(2)
    with interrupt(stage_two, 5):
        run("parts")
    assert_same_run(whole, run("parts"))


def test_a_finished_run_returns_a_plain_frozen_student(tmp_path, build, cached, prompt_tables, references, batch):
    trainer = build(cached)
    names = {name.replace(".base_layer", "") for name in trainer.transformer.state_dict() if "lora_" not in name}
    student, _ = train_adversarially(trainer, prompt_tables.prompts, references, tmp_path / "run")
    assert set(student.state_dict()) == names
    assert not any(parameter.requires_grad for parameter in student.parameters())
    student.save_pretrained(tmp_path / "student")
    loaded = type(student).from_pretrained(tmp_path / "student")
    levels = step_sigmas(2, SHIFT)
    outputs = [sample_latents(model, batch.noise, levels, batch.prompts) for model in (student, loaded)]
    assert torch.equal(*outputs)


def test_batches_pair_each_reference_with_its_prompt_and_noise(transformer, prompt_tables, references, params):
    drawn = draw_batch(transformer, prompt_tables.prompts, references, params, step=3)
    latents = references.column("latent")
    for row in range(params.batch_size):
        source = int((latents == drawn.reference[row]).flatten(1).all(1).nonzero())
        index = references.index.iloc[source]
        expected = read_prompts(prompt_tables.prompts, [index["prompt_row"]])
        assert torch.equal(drawn.noise[row], noise_from_seeds([index["noise_seed"]], transformer)[0])
        assert torch.equal(drawn.prompts.pooled[row], expected.pooled[0])


def test_a_batch_is_a_function_of_seed_and_step(transformer, prompt_tables, references, params):
    def noise(step: int, seed: int = 6) -> Tensor:
        changed = params.model_copy(update={"seed": seed, "batch_size": 16})
        return draw_batch(transformer, prompt_tables.prompts, references, changed, step).noise

    assert torch.equal(noise(3), noise(3))
    assert not torch.equal(noise(3), noise(4))
    assert not torch.equal(noise(3), noise(3, seed=7))
