from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from onex_distill.cache.block_cache import BlockCache, is_cached
from onex_distill.cache.compensation import Compensation, Streams
from onex_distill.cache.plan import Band, CachePlan, reuse_after_first
from onex_distill.engine.randomness import seeded
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.velocity import predict_velocity
from onex_distill.pretraining.architecture import ArchitectureParams, build_transformer

BANDS = ((1, 3), (4, 5))
PLAN = reuse_after_first(BANDS, 3)
SIGMAS = (1.0, 0.75, 0.4)
VARIANTS = {
    "plain": {"qk_norm": None},
    "qk_norm": {"qk_norm": "rms_norm"},
    "dual_attention": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1, 2)},
}
Residuals = dict[Band, Streams]
Skipped = dict[Band, Callable[[Streams], Streams]]


@pytest.fixture
def six_blocks(architecture: ArchitectureParams) -> ArchitectureParams:
    """The last band ends right before the last block, which has no text output (``context_pre_only``)."""
    return architecture.model_copy(update={"num_layers": 6})


@pytest.fixture(params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest, six_blocks: ArchitectureParams) -> SD3Transformer2DModel:
    with seeded(3):
        return build_transformer(six_blocks.model_copy(update=VARIANTS[request.param])).eval()


@pytest.fixture
def one(six_blocks: ArchitectureParams) -> SD3Transformer2DModel:
    """One transformer where the variant does not matter."""
    with seeded(3):
        return build_transformer(six_blocks).eval()


def perturbed(kind: str = "input_residual_mlp") -> Compensation:
    """A compensation that is not the identity."""
    with seeded(4):
        module = Compensation(16, [BANDS, ((1, 5),)], kind)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.2)
    return module


@pytest.fixture
def compensation() -> Compensation:
    return perturbed()


@pytest.fixture
def inputs(noise: Tensor) -> list[Tensor]:
    """The inputs of three steps."""
    return [noise, 0.7 * noise.flip(0) + 0.1, 0.5 * noise.roll(1, 0) - 0.2]


def run_step(cache: BlockCache, step: int, x_t: Tensor, prompts: PromptBatch) -> Tensor:
    cache.begin_step(step)
    return predict_velocity(cache.transformer, x_t, SIGMAS[step], prompts)


def run_all(cache: BlockCache, inputs: list[Tensor], prompts: PromptBatch) -> list[Tensor]:
    return [run_step(cache, step, x_t, prompts) for step, x_t in enumerate(inputs)]


def by_hand(
    transformer: SD3Transformer2DModel, x_t: Tensor, sigma: float, prompts: PromptBatch, skipped: Skipped
) -> tuple[Tensor, Residuals]:
    """The forward written out, adding ``skipped`` in place of its bands; returns the output and the bands' deltas."""
    image = transformer.pos_embed(x_t)
    text = transformer.context_embedder(prompts.embeds)
    temb = transformer.time_text_embed(torch.full((len(x_t),), 1000 * sigma), prompts.pooled)
    index, deltas = 0, {}
    while index < len(transformer.transformer_blocks):
        start, stop = next((band for band in BANDS if band[0] == index), (index, index + 1))
        before = (text, image)
        if (start, stop) in skipped:
            text, image = (a + b for a, b in zip(before, skipped[start, stop](before), strict=True))
        else:
            for block in transformer.transformer_blocks[start:stop]:
                text, image = block(hidden_states=image, encoder_hidden_states=text, temb=temb)
        if (start, stop) in BANDS:
            deltas[start, stop] = (text - before[0], image - before[1])
        index = stop
    patches = transformer.proj_out(transformer.norm_out(image, temb))
    grid = patches.reshape(len(x_t), 4, 4, 2, 2, 4)
    return torch.einsum("nhwpqc->nchpwq", grid).reshape(x_t.shape), deltas


def compensated(compensation: Compensation, deltas: Residuals, sigma: float) -> Skipped:
    def compensate(band: Band, entered: Streams) -> Streams:
        return compensation(band, deltas[band], entered, torch.full((len(entered[0]),), sigma))

    return {band: partial(compensate, band) for band in deltas}


@torch.no_grad()
def test_attached_but_inactive_equals_the_plain_model(transformer, prompts, noise, compensation):
    plain = predict_velocity(transformer, noise, 1.0, prompts)
    BlockCache(transformer, PLAN, compensation).attach()
    assert torch.equal(predict_velocity(transformer, noise, 1.0, prompts), plain)


@torch.no_grad()
def test_storing_equals_the_plain_model(transformer, prompts, noise, compensation):
    plain = predict_velocity(transformer, noise, 1.0, prompts)
    cache = BlockCache(transformer, PLAN, compensation).attach()
    assert torch.equal(run_step(cache, 0, noise, prompts), plain)


@torch.no_grad()
def test_detaching_restores_the_plain_model(transformer, prompts, inputs, compensation):
    plain = predict_velocity(transformer, inputs[1], 0.75, prompts)
    cache = BlockCache(transformer, PLAN, compensation).attach()
    assert not torch.equal(run_all(cache, inputs[:2], prompts)[1], plain)
    cache.detach()
    assert torch.equal(predict_velocity(transformer, inputs[1], 0.75, prompts), plain)
    assert cache.step is None
    cache.attach()
    cache.detach()
    assert torch.equal(predict_velocity(transformer, inputs[1], 0.75, prompts), plain)


@torch.no_grad()
def test_plain_caching_at_the_same_input_reproduces_the_full_output(transformer, prompts, noise):
    cache = BlockCache(transformer, PLAN, Compensation(16, [BANDS], "identity")).attach()
    full = run_step(cache, 0, noise, prompts)
    cache.begin_step(1)
    torch.testing.assert_close(predict_velocity(transformer, noise, 1.0, prompts), full)


@torch.no_grad()
def test_stored_residuals_are_what_the_bands_add(transformer, prompts, noise, compensation):
    _, deltas = by_hand(transformer, noise, 1.0, prompts, {})
    cache = BlockCache(transformer, PLAN, compensation).attach()
    run_step(cache, 0, noise, prompts)
    for stored, band in zip(cache.step.deltas, BANDS, strict=True):
        for stream, expected in zip(stored, deltas[band], strict=True):
            torch.testing.assert_close(stream, expected)


@pytest.mark.parametrize("kind", ["identity", "residual_mlp", "sigma_residual_mlp"])
@torch.no_grad()
def test_reuse_equals_the_forward_written_out(transformer, prompts, inputs, kind):
    compensation = perturbed(kind)
    _, deltas = by_hand(transformer, inputs[0], SIGMAS[0], prompts, {})
    expected = [
        by_hand(transformer, inputs[step], SIGMAS[step], prompts, compensated(compensation, deltas, SIGMAS[step]))[0]
        for step in (1, 2)
    ]
    cache = BlockCache(transformer, PLAN, compensation).attach()
    for output, by_definition in zip(run_all(cache, inputs, prompts)[1:], expected, strict=True):
        torch.testing.assert_close(output, by_definition)


@torch.no_grad()
def test_every_band_follows_its_own_column_and_reuses_its_last_residual(transformer, prompts, inputs, compensation):
    first, second = BANDS
    plan = CachePlan(BANDS, [[True, True], [False, True], [True, False]])
    cache = BlockCache(transformer, plan, compensation).attach()
    outputs = run_all(cache, inputs, prompts)
    cache.detach()
    full, deltas = by_hand(transformer, inputs[0], SIGMAS[0], prompts, {})
    skip_first = compensated(compensation, {first: deltas[first]}, SIGMAS[1])
    middle, deltas = by_hand(transformer, inputs[1], SIGMAS[1], prompts, skip_first)
    skip_second = compensated(compensation, {second: deltas[second]}, SIGMAS[2])
    last, _ = by_hand(transformer, inputs[2], SIGMAS[2], prompts, skip_second)
    for output, expected in zip(outputs, (full, middle, last), strict=True):
        torch.testing.assert_close(output, expected)


@torch.no_grad()
def test_reuse_does_not_run_the_bands(transformer, prompts, noise, compensation):
    cache = BlockCache(transformer, PLAN, compensation).attach()
    run_step(cache, 0, noise, prompts)
    ran = []
    for index, block in enumerate(transformer.transformer_blocks):
        block.ff.register_forward_hook(lambda *_, index=index: ran.append(index))
    run_step(cache, 1, noise, prompts)
    assert ran == [0, 3, 5]


@torch.no_grad()
def test_another_plan_can_be_used_from_the_next_sampling_on(one, prompts, inputs, compensation):
    plans = [PLAN, reuse_after_first([(1, 5)], 3), reuse_after_first([(4, 5)], 3), reuse_after_first([], 3)]
    expected = []
    for plan in plans:
        cache = BlockCache(one, plan, compensation).attach()
        expected.append(run_all(cache, inputs, prompts)[2])
        cache.detach()
    assert len({float(output.sum()) for output in expected}) == len(plans)
    cache = BlockCache(one, PLAN, compensation).attach()
    for plan, output in reversed(list(zip(plans, expected, strict=True))):
        cache.use(plan)
        assert torch.equal(run_all(cache, inputs, prompts)[2], output)


@torch.no_grad()
def test_several_caches_on_several_models_do_not_leak(six_blocks, prompts, inputs, compensation):
    with seeded(8):
        models = [build_transformer(six_blocks).eval() for _ in range(3)]
    orders = [inputs, inputs[::-1]]
    plans = [PLAN, reuse_after_first([(1, 5)], 3)]
    expected = []
    for model, order, plan in zip(models, orders, plans, strict=False):
        cache = BlockCache(model, plan, compensation).attach()
        expected.append(run_all(cache, order, prompts))
        cache.detach()
    bystander = predict_velocity(models[2], inputs[0], 1.0, prompts)
    caches = [BlockCache(model, plan, compensation).attach() for model, plan in zip(models, plans, strict=False)]
    for step in range(3):
        for cache, order, outputs in zip(caches, orders, expected, strict=True):
            assert torch.equal(run_step(cache, step, order[step], prompts), outputs[step])
        assert torch.equal(predict_velocity(models[2], inputs[0], 1.0, prompts), bystander)


@torch.no_grad()
def test_a_new_sampling_forgets_the_old_one(one, prompts, inputs, compensation):
    cache = BlockCache(one, PLAN, compensation).attach()
    expected = run_all(cache, inputs, prompts)[1]
    run_all(cache, inputs[::-1], prompts)
    cache.begin_step(0)
    assert cache.step.deltas == [None, None]
    assert torch.equal(run_all(cache, inputs, prompts)[1], expected)


@torch.no_grad()
def test_reset_forgets(transformer, prompts, noise, compensation):
    plain = predict_velocity(transformer, noise, 1.0, prompts)
    cache = BlockCache(transformer, PLAN, compensation).attach()
    run_step(cache, 0, noise, prompts)
    run_step(cache, 1, noise, prompts)
    cache.reset()
    assert torch.equal(predict_velocity(transformer, noise, 1.0, prompts), plain)
    with pytest.raises(RuntimeError, match="no residual is stored"):
        run_step(cache, 1, noise, prompts)


def test_gradient_of_reuse_reaches_all_but_the_bands(transformer, prompts, inputs, compensation):
    cache = BlockCache(transformer, PLAN, compensation).attach()
    with torch.no_grad():
        run_step(cache, 0, inputs[0], prompts)
    run_step(cache, 1, inputs[1], prompts).square().mean().backward()
    for index, block in enumerate(transformer.transformer_blocks):
        grads = [p.grad for p in block.parameters()]
        if index in (0, 3, 5):
            assert block.attn.to_q.weight.grad.abs().sum() > 0, index
        else:
            assert all(grad is None for grad in grads), index
    for name, parameter in compensation.named_parameters():
        unused = "1_5" in name  # the band of another candidate
        assert parameter.grad is None if unused else parameter.grad.abs().sum() > 0, name


def gradients(cache: BlockCache, loss: Tensor) -> dict[str, Tensor]:
    cache.transformer.zero_grad()
    cache.compensation.zero_grad()
    loss.backward()
    named = [*cache.transformer.named_parameters(), *cache.compensation.named_parameters()]
    return {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}


@pytest.mark.parametrize("kind", ["residual_mlp", "sigma_residual_mlp"])
@pytest.mark.parametrize("enabled_first", [True, False])
def test_gradient_checkpointing_changes_no_gradient(transformer, prompts, inputs, kind, enabled_first):
    cache = BlockCache(transformer, PLAN, perturbed(kind))

    def through_all_steps() -> dict[str, Tensor]:
        outputs = run_all(cache, inputs, prompts)
        # the backward pass computes blocks again, after other steps, another sampling, and with the cache inactive
        with torch.no_grad():
            run_all(cache, inputs[::-1], prompts)
        deltas = [stream.clone() for delta in cache.step.deltas for stream in delta]
        loss = sum(output.square().mean() for output in outputs)
        result = gradients(cache, loss)
        assert all(map(torch.equal, deltas, (stream for delta in cache.step.deltas for stream in delta)))
        cache.reset()
        return result

    cache.attach()
    expected = through_all_steps()
    if enabled_first:
        cache.detach()
        transformer.enable_gradient_checkpointing()
        cache.attach()
    else:
        transformer.enable_gradient_checkpointing()
    found = through_all_steps()
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_checkpointed_blocks_outlive_a_detached_cache(one, prompts, inputs, compensation):
    cache = BlockCache(one, PLAN, compensation).attach()
    expected = gradients(cache, sum(output.sum() for output in run_all(cache, inputs, prompts)))
    one.enable_gradient_checkpointing()
    loss = sum(output.sum() for output in run_all(cache, inputs, prompts))
    cache.reset()
    found = gradients(cache, loss)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


@pytest.mark.parametrize("kind", ["residual_mlp", "sigma_residual_mlp"])
@torch.no_grad()
def test_bf16(transformer, prompts, inputs, kind):
    transformer.to(torch.bfloat16)
    compensation = perturbed(kind).to(torch.bfloat16)
    half = PromptBatch(prompts.embeds.bfloat16(), prompts.pooled.bfloat16())
    cache = BlockCache(transformer, PLAN, compensation).attach()
    outputs = run_all(cache, [x_t.bfloat16() for x_t in inputs], half)
    cache.detach()
    assert all(output.dtype == torch.bfloat16 for output in outputs)
    full, deltas = by_hand(transformer, inputs[0].bfloat16(), SIGMAS[0], half, {})
    residuals = compensated(compensation, deltas, SIGMAS[1])
    assert torch.equal(outputs[0], full)
    assert torch.equal(outputs[1], by_hand(transformer, inputs[1].bfloat16(), SIGMAS[1], half, residuals)[0])


def compile_model(transformer: SD3Transformer2DModel) -> None:
    transformer.compile(backend="eager")


def compile_blocks(transformer: SD3Transformer2DModel) -> None:
    for block in transformer.transformer_blocks:
        block.compile(backend="eager")


@pytest.mark.parametrize(
    ("attach_first", "compile_part"),
    [
        (True, compile_model),
        (False, compile_blocks),
        pytest.param(True, compile_blocks, marks=pytest.mark.slow),
        pytest.param(False, compile_model, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_compiled_models_give_the_same(one, prompts, inputs, compensation, compile_part, attach_first):
    torch._dynamo.reset()
    cache = BlockCache(one, PLAN, compensation).attach()
    expected = run_all(cache, inputs, prompts)
    if not attach_first:
        cache.detach()
    plain = predict_velocity(one, inputs[0], 1.0, prompts)
    compile_part(one)
    torch.testing.assert_close(predict_velocity(one, inputs[0], 1.0, prompts), plain)
    if not attach_first:
        cache.attach()
    for output, eager in zip(run_all(cache, inputs, prompts), expected, strict=True):
        torch.testing.assert_close(output, eager)
    run_all(cache, inputs, prompts)
    with torch.compiler.set_stance("fail_on_recompile"):
        for output, eager in zip(run_all(cache, inputs, prompts), expected, strict=True):
            torch.testing.assert_close(output, eager)


def test_a_band_outside_the_model_is_refused(six_blocks):
    transformer = build_transformer(six_blocks)
    with pytest.raises(ValueError, match=r"band \[3, 6\]"):
        BlockCache(transformer, reuse_after_first([(3, 6)], 2), Compensation(16, [((3, 6),)], "identity"))


def test_a_cache_is_attached_once(one, compensation):
    cache = BlockCache(one, PLAN, compensation).attach()
    with pytest.raises(ValueError, match="this block cache is attached already"):
        cache.attach()
    cache.detach()
    cache.attach().detach()
    assert not is_cached(one)


@torch.no_grad()
def test_a_sampling_inside_another_leaves_it_as_it_was(one, prompts, inputs, compensation):
    outer, inner = BlockCache(one, PLAN, compensation).attach(), BlockCache(one, PLAN, compensation)
    expected = run_all(outer, inputs, prompts)
    run_step(outer, 0, inputs[0], prompts)
    inner.attach()
    assert all(map(torch.equal, run_all(inner, inputs, prompts), expected))
    inner.detach()
    assert torch.equal(run_step(outer, 1, inputs[1], prompts), expected[1])
    outer.detach()


@torch.no_grad()
def test_other_threads_run_the_plain_model_or_their_own_cache(one, prompts, inputs, compensation):
    plain = predict_velocity(one, inputs[0], 1.0, prompts)
    cache = BlockCache(one, PLAN, compensation).attach()
    expected = run_all(cache, inputs, prompts)
    run_step(cache, 0, inputs[0], prompts)
    with ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(predict_velocity, one, inputs[0], 1.0, prompts).result(), plain)
        other = BlockCache(one, PLAN, compensation)
        pool.submit(other.attach).result()
        assert all(map(torch.equal, pool.submit(run_all, other, inputs, prompts).result(), expected))
        pool.submit(other.detach).result()
    assert torch.equal(run_step(cache, 1, inputs[1], prompts), expected[1])
    cache.detach()
    assert not is_cached(one)


@torch.no_grad()
def test_a_batch_that_changes_between_steps_is_refused(one, prompts, inputs, compensation):
    cache = BlockCache(one, PLAN, compensation).attach()
    run_step(cache, 0, inputs[0], prompts)
    with pytest.raises(ValueError, match=r"changed from \(3, 16\) \(rows, tokens\) to \(1, 16\) between the steps"):
        run_step(cache, 1, inputs[1][:1], prompts[:1])
    cache.detach()


@torch.no_grad()
def test_a_forward_that_was_replaced_before_or_meanwhile_is_kept(one, prompts, inputs, compensation):
    cache, ran = BlockCache(one, PLAN, compensation), []
    cache.attach()
    expected = run_all(cache, inputs, prompts)
    cache.detach()
    block, plain = one.transformer_blocks[1], one.transformer_blocks[1].forward

    def replaced(*args, **kwargs):
        ran.append(1)
        return plain(*args, **kwargs)

    block.forward = replaced
    cache.attach()
    assert all(map(torch.equal, run_all(cache, inputs, prompts), expected))
    cache.detach()
    assert block.forward is replaced
    cache.attach()
    block.forward = plain
    cache.detach()
    assert block.forward is plain
    assert ran == [1]


def test_a_band_without_compensation_is_refused(one, compensation):
    with pytest.raises(ValueError, match=r"has band \[2, 4\], the compensation only \[\[1, 3\], \[1, 5\], \[4, 5\]\]"):
        BlockCache(one, reuse_after_first([(2, 4)], 2), compensation)


def test_a_compensation_of_another_width_is_refused(one):
    with pytest.raises(ValueError, match="24 wide, the transformer 16"):
        BlockCache(one, PLAN, Compensation(24, [BANDS], "residual_mlp"))


def test_a_step_that_the_plan_does_not_have_is_refused(one, compensation):
    cache = BlockCache(one, PLAN, compensation)
    with pytest.raises(ValueError, match="step 3 is beyond the cache plan of 3 steps"):
        cache.begin_step(3)
