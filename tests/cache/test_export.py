import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy, deepcopy
from dataclasses import asdict
from functools import partial

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    StableDiffusion3Pipeline,
)
from diffusers.callbacks import PipelineCallback
from peft import LoraConfig
from torch import nn

from onex_distill.cache.block_cache import BlockCache, is_cached
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
from onex_distill.cache.plan import CachePlan, reuse_after_first
from onex_distill.engine.randomness import seeded
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import Guidance, decode_latents, sample_latents
from onex_distill.models.text import encode_prompts

CANDIDATES = (((1, 3),), ((2, 3),))  # 1.5 and 1.75 evaluations of a model of four blocks
TEXTS = ["the red solid circle", "a hollow blue square"]


@pytest.fixture
def fractional(tiny_teacher) -> FractionalStableDiffusion3Pipeline:
    with seeded(2):
        compensation = Compensation(16, CANDIDATES, "sigma_residual_mlp")
        for parameter in compensation.parameters():
            nn.init.normal_(parameter, std=0.2)
    pipeline = FractionalStableDiffusion3Pipeline(
        **tiny_teacher.components, compensation=compensation.eval(), num_inference_steps=2, max_sequence_length=6
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def encoded(pipeline: StableDiffusion3Pipeline) -> PromptBatch:
    return PromptBatch(*encode_prompts(pipeline, TEXTS, 6))


@torch.no_grad()
def sampled_by_hand(
    pipeline: FractionalStableDiffusion3Pipeline,
    noise: torch.Tensor,
    plan: CachePlan | None = None,
    guidance: Guidance | None = None,
) -> torch.Tensor:
    plan = plan or reuse_after_first(CANDIDATES[0], 2)
    cache = BlockCache(pipeline.transformer, plan, pipeline.compensation).attach()
    sigmas = step_sigmas(plan.num_inference_steps, 3.0)
    prompts = encoded(pipeline)
    x0 = sample_latents(pipeline.transformer, noise, sigmas, prompts, guidance, before_step=cache.begin_step)
    cache.detach()
    return x0


def is_untouched(pipeline: FractionalStableDiffusion3Pipeline) -> bool:
    """No hook of a call is left."""
    modules = (pipeline.transformer, *pipeline.transformer.transformer_blocks)
    return not is_cached(pipeline.transformer) and not any("forward" in vars(module) for module in modules)


def sampled(pipeline: FractionalStableDiffusion3Pipeline, noise: torch.Tensor, **arguments) -> torch.Tensor:
    return pipeline(TEXTS, latents=noise[:2], output_type="latent", **arguments).images


def test_the_default_call_equals_sampling_by_hand(fractional, noise):
    expected = sampled_by_hand(fractional, noise[:2])
    latents = fractional(TEXTS, latents=noise[:2], output_type="latent").images
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
    assert fractional.scheduler.sigmas.tolist() == [1.0, 0.75, 0.0]


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_any_number_of_steps_follows_the_students_schedule(fractional, noise, steps):
    expected = sampled_by_hand(fractional, noise[:2], reuse_after_first(CANDIDATES[0], steps))
    latents = fractional(TEXTS, latents=noise[:2], num_inference_steps=steps, output_type="latent").images
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_images_are_the_decoded_latents(fractional, noise):
    images = fractional(TEXTS, latents=noise[:2], output_type="pt").images
    expected = decode_latents(fractional.vae, sampled_by_hand(fractional, noise[:2])).clamp(0, 1)
    torch.testing.assert_close(images, expected, rtol=1e-3, atol=1e-4)


def test_guidance_still_works(fractional, noise):
    plain = fractional(TEXTS, latents=noise[:2], output_type="latent").images
    guided = fractional(TEXTS, latents=noise[:2], guidance_scale=4.0, output_type="latent").images
    assert not torch.allclose(guided, plain, atol=1e-3)
    empty = PromptBatch(*encode_prompts(fractional, [""], 6))
    torch.testing.assert_close(guided, sampled_by_hand(fractional, noise[:2], guidance=Guidance(4.0, empty)))


@torch.no_grad()
def test_without_compensation_every_block_runs(fractional, noise):
    fractional.register_modules(compensation=None)
    latents = fractional(TEXTS, latents=noise[:2], output_type="latent").images
    expected = sample_latents(fractional.transformer, noise[:2], step_sigmas(2, 3.0), encoded(fractional))
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


def test_save_and_load_round_trip(fractional, noise, tmp_path):
    expected = fractional(TEXTS, latents=noise[:2], output_type="latent").images
    fractional.save_pretrained(tmp_path)
    loaded = FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert (loaded.config.num_inference_steps, loaded.config.max_sequence_length) == (2, 6)
    assert CachePlan(**loaded.config.plan) == reuse_after_first(CANDIDATES[0], 2)
    assert loaded.compensation.candidates == CANDIDATES
    assert torch.equal(loaded(TEXTS, latents=noise[:2], output_type="latent").images, expected)


def test_an_exported_plan_is_followed(fractional, noise, tmp_path):
    plan = CachePlan(CANDIDATES[1], [[True], [False], [True], [False]])
    exported = FractionalStableDiffusion3Pipeline(
        **fractional.components, plan=asdict(plan), num_inference_steps=4, max_sequence_length=6
    )
    exported.save_pretrained(tmp_path)
    loaded = FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    latents = loaded(TEXTS, latents=noise[:2], output_type="latent").images
    torch.testing.assert_close(latents, sampled_by_hand(fractional, noise[:2], plan), rtol=1e-4, atol=1e-5)
    default = sampled_by_hand(fractional, noise[:2], reuse_after_first(CANDIDATES[1], 4))
    assert not torch.allclose(latents, default, atol=1e-3)


@pytest.mark.parametrize(
    ("nfe", "bands"), [(2.0, ()), (1.75, CANDIDATES[1]), (1.6, CANDIDATES[0]), (1.5, CANDIDATES[0])]
)
def test_a_budget_chooses_the_bands(fractional, noise, nfe, bands):
    expected = sampled_by_hand(fractional, noise[:2], reuse_after_first(bands, 2))
    latents = fractional(TEXTS, latents=noise[:2], nfe=nfe, output_type="latent").images
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("nfe", [1.4, 2.1])
def test_a_budget_that_nothing_meets_is_refused(fractional, nfe):
    with pytest.raises(ValueError, match=rf"nfe {nfe} cannot be met: .* 1\.50 to 2\.00 in 2 steps"):
        fractional(TEXTS, nfe=nfe)
    assert is_untouched(fractional)


def test_a_budget_without_compensation_is_refused(fractional):
    fractional.register_modules(compensation=None)
    with pytest.raises(ValueError, match=r"nfe 1\.5 needs a compensation"):
        fractional(TEXTS, nfe=1.5)


def test_sigmas_decide_the_number_of_steps(fractional, noise):
    expected = fractional(TEXTS, latents=noise[:2], num_inference_steps=3, output_type="latent").images
    latents = fractional(TEXTS, latents=noise[:2], sigmas=[1.0, 2 / 3, 1 / 3], output_type="latent").images
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The distance of two tensors, relative to the second."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(fractional, noise, tmp_path, dtype):
    expected = fractional(TEXTS, latents=noise[:2], output_type="latent").images
    fractional.save_pretrained(tmp_path)
    loaded = FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path, dtype=dtype)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.compensation.dtype == dtype
    latents = loaded(TEXTS, latents=noise[:2].to(dtype), output_type="latent").images
    assert latents.dtype == dtype
    assert apart(latents.float(), expected) < 0.03
    assert apart(sampled(loaded, noise.to(dtype), nfe=2.0).float(), expected) > 0.2  # as without the cache


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"bands": [[1, 3]], "computes": [[True]]}, "the cache plan is for 1 steps but num_inference_steps is 2"),
        ({"bands": [[1, 3]], "computes": [[False], [True]]}, "first step of the cache plan reuses"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(fractional, plan, message):
    with pytest.raises(ValueError, match=message):
        FractionalStableDiffusion3Pipeline(**fractional.components, plan=plan)


def test_a_compensation_of_another_width_is_refused(fractional):
    parts = {**fractional.components, "compensation": Compensation(24, CANDIDATES, "linear")}
    with pytest.raises(ValueError, match="24 wide, the transformer 16"):
        FractionalStableDiffusion3Pipeline(**parts)


def remove_folder(folder):
    shutil.rmtree(folder)


def remove_config(folder):
    (folder / "config.json").unlink()


def break_config(folder):
    (folder / "config.json").write_text("{")


def remove_weights(folder):
    (folder / "diffusion_pytorch_model.safetensors").unlink()


def cut_weights(folder):
    path = folder / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_band(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"candidates": [[[1, 2]]]}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_folder, "compensation does not exist"),
        (remove_config, "compensation cannot be loaded"),
        (break_config, "compensation cannot be loaded"),
        (remove_weights, "compensation holds no weights|compensation has no"),
        (cut_weights, "compensation cannot be loaded"),
        (lose_a_band, "compensation does not hold the weights of its config"),
    ],
)
def test_a_missing_or_damaged_compensation_is_answered_in_one_line(fractional, tmp_path, damage, message):
    fractional.save_pretrained(tmp_path)
    damage(tmp_path / "compensation")
    with pytest.raises(ValueError, match=message) as error:
        FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_folder_without_compensation_opens_uncached(tiny_teacher_folder, noise):
    pipeline = FractionalStableDiffusion3Pipeline.from_pretrained(tiny_teacher_folder, max_sequence_length=6)
    assert pipeline.compensation is None
    assert pipeline(TEXTS, latents=noise[:2], output_type="latent").images.shape == (2, 4, 8, 8)


@torch.no_grad()
def test_the_folder_opens_with_the_plain_pipeline_uncached(fractional, noise, tmp_path):
    fractional.save_pretrained(tmp_path)
    plain = StableDiffusion3Pipeline.from_pretrained(tmp_path)
    plain.set_progress_bar_config(disable=True)
    latents = plain(
        TEXTS,
        latents=noise[:2],
        sigmas=[1.0, 0.5],
        num_inference_steps=2,
        guidance_scale=1.0,
        max_sequence_length=6,
        output_type="latent",
    ).images
    expected = sample_latents(plain.transformer, noise[:2], step_sigmas(2, 3.0), encoded(plain))
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


def test_several_images_a_prompt_with_a_generator_each(fractional):
    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = fractional(TEXTS, num_images_per_prompt=2, generator=generators(1, 2, 3, 4), output_type="latent").images
    assert together.shape == (4, 4, 8, 8)
    for row, (text, seed) in enumerate(zip([TEXTS[0]] * 2 + [TEXTS[1]] * 2, (1, 2, 3, 4), strict=True)):
        alone = fractional(text, generator=generators(seed), output_type="latent").images
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_callbacks_see_every_step_and_may_change_the_latents(fractional, noise):
    seen = []

    def callback(pipeline, step, timestep, tensors):
        seen.append((step, float(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else {}

    latents = fractional(TEXTS, latents=noise[:2], callback_on_step_end=callback, output_type="latent").images
    assert seen == [(0, 1000.0), (1, 750.0)]
    assert not latents.any()


def test_a_call_leaves_the_transformer_untouched(fractional, noise):
    fractional(TEXTS, latents=noise[:2], output_type="latent")
    assert is_untouched(fractional)


def test_a_call_that_raised_leaves_the_transformer_untouched(fractional, noise):
    def callback(*_):
        raise KeyError("stop here")

    expected = fractional(TEXTS, latents=noise[:2], output_type="latent").images
    with pytest.raises(KeyError, match="stop here"):
        fractional(TEXTS, latents=noise[:2], callback_on_step_end=callback)
    assert is_untouched(fractional)
    assert torch.equal(fractional(TEXTS, latents=noise[:2], output_type="latent").images, expected)


def compile_in_place(pipeline: FractionalStableDiffusion3Pipeline) -> None:
    pipeline.transformer.compile(backend="eager", fullgraph=True)


def wrap_compiled(pipeline: FractionalStableDiffusion3Pipeline) -> None:
    pipeline.transformer = torch.compile(pipeline.transformer, backend="eager", fullgraph=True)


@pytest.mark.parametrize("compile_transformer", [pytest.param(compile_in_place, marks=pytest.mark.slow), wrap_compiled])
def test_a_compiled_transformer_is_compiled_for_the_first_image_alone(
    fractional, noise, compile_transformer: Callable[[FractionalStableDiffusion3Pipeline], None]
):
    expected = {nfe: sampled(fractional, noise, nfe=nfe) for nfe in (1.5, 1.75)}
    torch._dynamo.reset()
    compile_transformer(fractional)
    for nfe, latents in expected.items():
        torch._dynamo.utils.counters.clear()
        torch.testing.assert_close(sampled(fractional, noise, nfe=nfe), latents)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # a step that computes, one that reuses
    with torch.compiler.set_stance("fail_on_recompile"):
        for nfe, latents in reversed(expected.items()):
            torch.testing.assert_close(sampled(fractional, noise, nfe=nfe), latents)
    assert not is_cached(fractional.transformer)


def test_a_copy_samples_with_its_own_weights(fractional, noise):
    expected = sampled(fractional, noise)
    copy = deepcopy(fractional)
    assert torch.equal(sampled(copy, noise), expected)
    nn.init.zeros_(copy.transformer.proj_out.weight)
    assert not torch.allclose(sampled(copy, noise), expected)
    assert torch.equal(sampled(fractional, noise), expected)


def test_pipelines_share_a_transformer(fractional, noise):
    other = FractionalStableDiffusion3Pipeline(
        **{**fractional.components, "compensation": Compensation(16, CANDIDATES, "identity")}, max_sequence_length=6
    )
    other.set_progress_bar_config(disable=True)
    expected = [sampled(pipeline, noise) for pipeline in (fractional, other)]
    assert not torch.allclose(*expected)
    assert all(
        torch.equal(sampled(p, noise), latents) for p, latents in zip((fractional, other), expected, strict=True)
    )


def test_a_replaced_compensation_is_used(fractional, noise):
    expected = sampled(fractional, noise)
    trained = fractional.compensation
    fractional.register_modules(compensation=Compensation(16, CANDIDATES, "identity"))
    assert not torch.allclose(sampled(fractional, noise), expected)
    fractional.register_modules(compensation=trained)
    assert torch.equal(sampled(fractional, noise), expected)


def test_a_callback_of_diffusers_gets_the_tensors_that_it_reads(fractional, noise):
    class Reading(PipelineCallback):
        tensor_inputs = ("latents", "prompt_embeds")
        seen = ()

        def callback_fn(self, pipeline, step, timestep, tensors):
            Reading.seen += (*tensors,)
            return tensors

    expected = sampled(fractional, noise)
    assert torch.equal(sampled(fractional, noise, callback_on_step_end=Reading()), expected)
    assert Reading.seen == 2 * Reading.tensor_inputs


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(fractional, steps):
    with pytest.raises(ValueError, match=f"num_inference_steps must be at least 1, got {steps}"):
        fractional(TEXTS, num_inference_steps=steps)
    assert is_untouched(fractional)


def nearly(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal within what MKL rounds by where tensors lie in memory."""
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def in_threads(calls: list[Callable[[], torch.Tensor]], rounds: int = 3) -> list[list[torch.Tensor]]:
    """What every call gives in each of several rounds, all calls of a round at once."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [[future.result() for future in [pool.submit(call) for call in calls]] for _ in range(rounds)]


def test_threads_may_call_one_pipeline(fractional, noise):
    calls = [partial(sampled, fractional, noise, nfe=nfe) for nfe in (1.5, 1.75, 2.0, 1.5)]
    expected = [call() for call in calls]
    for results in in_threads(calls):
        assert all(map(nearly, results, expected))
    assert is_untouched(fractional)


def test_pipelines_of_several_kinds_share_a_transformer_in_threads(fractional, noise):
    own = {"scheduler": FlowMatchEulerDiscreteScheduler.from_config(fractional.scheduler.config)}
    plain = StableDiffusion3Pipeline.from_pipe(fractional, **own)
    copies = [copy(fractional), FractionalStableDiffusion3Pipeline.from_pipe(fractional, **deepcopy(own))]
    for pipeline in (plain, *copies):
        pipeline.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "guidance_scale": 1.0, "max_sequence_length": 6}
    calls = [
        partial(sampled, plain, noise, **settings),
        *(partial(sampled, pipeline, noise) for pipeline in (fractional, *copies)),
    ]
    expected = [call() for call in calls]
    assert nearly(expected[1], expected[3])
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    for results in in_threads(calls):
        assert all(map(nearly, results, expected))
    assert is_untouched(fractional)


def test_a_call_that_raises_in_one_thread_leaves_the_others(fractional, noise):
    other = FractionalStableDiffusion3Pipeline.from_pipe(
        fractional, scheduler=FlowMatchEulerDiscreteScheduler.from_config(fractional.scheduler.config)
    )
    other.set_progress_bar_config(disable=True)
    expected = sampled(fractional, noise)

    def failing() -> torch.Tensor:
        def callback(*_):
            raise KeyError("stop here")

        with pytest.raises(KeyError, match="stop here"):
            sampled(other, noise, callback_on_step_end=callback)
        return expected

    for results in in_threads([failing, partial(sampled, fractional, noise), failing]):
        assert all(nearly(result, expected) for result in results)
    assert is_untouched(fractional)


def test_a_call_inside_a_call_has_a_pipeline_of_its_own(fractional, noise):
    inner = FractionalStableDiffusion3Pipeline.from_pipe(
        fractional, scheduler=FlowMatchEulerDiscreteScheduler.from_config(fractional.scheduler.config)
    )
    inner.set_progress_bar_config(disable=True)
    expected, seen = sampled(fractional, noise), []

    def preview(pipeline, step, timestep, tensors):
        seen.append(sampled(inner, noise))
        return {}

    assert nearly(sampled(fractional, noise, callback_on_step_end=preview), expected)
    assert all(nearly(image, expected) for image in seen)
    with pytest.raises(ValueError, match="in the middle of a call"):
        sampled(fractional, noise, callback_on_step_end=lambda *_: sampled(fractional, noise) and {})
    assert nearly(sampled(fractional, noise), expected)


def test_a_batch_that_a_callback_changes_is_refused(fractional, noise):
    def halve(pipeline, step, timestep, tensors):
        return {name: tensor[:1] for name, tensor in tensors.items()}

    inputs = ["latents", "prompt_embeds", "pooled_prompt_embeds"]
    with pytest.raises(ValueError, match=r"the latents changed from .2, 16. .* between the steps"):
        sampled(fractional, noise, callback_on_step_end=halve, callback_on_step_end_tensor_inputs=inputs)
    whole = sampled(fractional, noise, nfe=2.0)
    halved = sampled(fractional, noise, nfe=2.0, callback_on_step_end=halve, callback_on_step_end_tensor_inputs=inputs)
    torch.testing.assert_close(halved, whole[:1], rtol=1e-4, atol=1e-5)


def test_prompts_are_encoded_first_and_sampled_later(fractional, noise, tmp_path):
    expected = sampled(fractional, noise)
    fractional.save_pretrained(tmp_path)
    encoder = FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path, transformer=None, vae=None)
    embeds, _, pooled, _ = encoder.encode_prompt(
        prompt=TEXTS, prompt_2=None, prompt_3=None, do_classifier_free_guidance=False, max_sequence_length=6
    )
    without = dict.fromkeys(
        ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    )
    sampler = FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path, **without)
    sampler.set_progress_bar_config(disable=True)
    images = sampler(prompt_embeds=embeds, pooled_prompt_embeds=pooled, latents=noise[:2], output_type="latent").images
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["variant", "sharded"])
def test_other_ways_of_saving_load_too(fractional, noise, tmp_path, kind):
    expected = sampled(fractional, noise)
    if kind == "variant":
        fractional.save_pretrained(tmp_path, variant="fp16")
        loaded = FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path, variant="fp16")
    else:
        fractional.save_pretrained(tmp_path, max_shard_size="20KB")
        assert list((tmp_path / "transformer").glob("*.index.json"))
        loaded = FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert nearly(sampled(loaded, noise), expected)


def test_pickled_weights_are_refused_in_one_line(fractional, tmp_path):
    fractional.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ValueError, match=r"holds its weights as .*bin, a pickle, which can run code") as error:
        FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_a_snapshot_of_the_hub_opens_by_its_id(fractional, noise, tmp_path):
    expected = sampled(fractional, noise)
    repository = tmp_path / "models--someone--student"
    fractional.save_pretrained(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    for pipeline_class in (FractionalStableDiffusion3Pipeline, DiffusionPipeline):
        loaded = pipeline_class.from_pretrained("someone/student", cache_dir=tmp_path, local_files_only=True)
        loaded.set_progress_bar_config(disable=True)
        own = {} if pipeline_class is FractionalStableDiffusion3Pipeline else {"num_inference_steps": 2}
        if not own:
            assert nearly(sampled(loaded, noise), expected)
        else:
            assert type(loaded) is StableDiffusion3Pipeline
            assert sampled(loaded, noise, guidance_scale=1.0, max_sequence_length=6, **own).shape == expected.shape
    index = json.loads((repository / "snapshots" / "abc" / "model_index.json").read_text())
    libraries = {value[0] for value in index.values() if isinstance(value, list) and isinstance(value[0], str | None)}
    assert libraries == {"diffusers", "transformers", None}


def test_students_of_version_0_1_open(fractional, noise, tmp_path):
    expected = sampled(fractional, noise)
    fractional.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    old = {
        "_class_name": "FractionalStableDiffusion3Pipeline",
        "compensation": ["onex_distill.models.compensation", "Compensation"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index | old))
    loaded = FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert nearly(sampled(loaded, noise), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_student_stored_in_half_precision_is_called_without_a_word_about_it(fractional, noise, tmp_path, dtype):
    expected = sampled(fractional, noise)
    fractional.to(dtype).save_pretrained(tmp_path)
    loaded = FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    modules = [part for part in loaded.components.values() if isinstance(part, nn.Module)]
    assert {module.dtype for module in modules} == {torch.float32}
    assert apart(sampled(loaded, noise), expected) < 0.01


def test_a_scheduler_of_several_calls_per_step_is_refused(fractional, noise):
    fractional.scheduler = FlowMatchHeunDiscreteScheduler.from_config(fractional.scheduler.config)
    with pytest.raises(ValueError, match="FlowMatchHeunDiscreteScheduler calls the network 2 times per step"):
        sampled(fractional, noise)
    assert is_untouched(fractional)


def test_sampling_unlike_the_training_is_warned_of(fractional, noise, caplog):
    fractional.register_to_config(sigmas=[1.0, 0.75])
    sampled(fractional, noise)
    assert not caplog.messages
    fractional(TEXTS, num_inference_steps=3, guidance_scale=2.0, height=64, output_type="latent")
    fractional.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    sampled(fractional, noise)
    assert caplog.messages == [
        "The student was trained for 2 steps and samples in 3.",
        "The student was trained without guidance; guidance_scale 2 costs twice as much and may oversaturate.",
        "The student was trained at 32 x 32 pixels and samples 64 x 32.",
        "The student was trained at sigmas [1.0, 0.75] and the scheduler takes [1.0, 0.5].",
    ]


def test_a_missing_budget_points_to_the_dial(fractional):
    with pytest.raises(ValueError, match="a student of many budgets is dial_pipeline"):
        fractional(TEXTS, nfe=1.2)


def test_slicing_and_offloading_change_no_image(fractional, noise):
    expected = fractional(TEXTS, latents=noise[:2], output_type="pt").images
    fractional.vae.enable_slicing()
    fractional.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        images = fractional(TEXTS, latents=noise[:2], output_type="pt").images
        torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)
    assert not is_cached(fractional.transformer)


def test_an_adapter_on_top_is_sampled_with_and_without(fractional, noise):
    expected = sampled(fractional, noise)
    with seeded(3):
        adapter = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
        fractional.transformer.add_adapter(adapter)
    assert not torch.allclose(sampled(fractional, noise), expected, atol=1e-3)
    fractional.transformer.disable_adapters()
    assert nearly(sampled(fractional, noise), expected)
