import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from onex_distill.models.block_cache import BlockCache, check_cached_blocks
from onex_distill.models.compensation import Compensation
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.tiny import ArchitectureParams, build_transformer, seeded
from onex_distill.models.velocity import predict_velocity

BAND = (1, 3)
VARIANTS = {
    "plain": {"qk_norm": None},
    "qk_norm": {"qk_norm": "rms_norm"},
    "dual_attention": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1, 2)},
    "deep": {"num_layers": 6},
}
Streams = tuple[Tensor, Tensor]


@pytest.fixture(params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest, architecture: ArchitectureParams) -> SD3Transformer2DModel:
    with seeded(3):
        return build_transformer(architecture.model_copy(update=VARIANTS[request.param])).eval()


@pytest.fixture
def compensation(architecture: ArchitectureParams) -> Compensation:
    """A compensation that is not the identity."""
    with seeded(4):
        module = Compensation(architecture.attention_head_dim * architecture.num_attention_heads, BAND)
        for stream in (module.text, module.image):
            nn.init.normal_(stream.down.weight, std=0.2)
    return module


@pytest.fixture
def later(noise: Tensor) -> Tensor:
    """The input of a second step: another tensor of the same shape."""
    return 0.7 * noise.flip(0) + 0.1


def identity() -> Compensation:
    return Compensation(16, BAND)


def by_hand(
    transformer: SD3Transformer2DModel,
    x_t: Tensor,
    sigma: float,
    prompts: PromptBatch,
    band_residual: Streams | None = None,
) -> tuple[Tensor, Streams]:
    """The forward written out: with ``band_residual`` the band is skipped; returns the output and the band's delta."""
    timestep = torch.full((len(x_t),), 1000 * sigma)
    image = transformer.pos_embed(x_t)
    text = transformer.context_embedder(prompts.embeds)
    temb = transformer.time_text_embed(timestep, prompts.pooled)
    before = (text, image)
    for index, block in enumerate(transformer.transformer_blocks):
        inside = BAND[0] <= index < BAND[1]
        if index == BAND[0]:
            before = (text, image)
        if not inside or band_residual is None:
            text, image = block(hidden_states=image, encoder_hidden_states=text, temb=temb)
        elif index == BAND[0]:
            text, image = text + band_residual[0], image + band_residual[1]
        if index == BAND[1] - 1:
            delta = (text - before[0], image - before[1])
    patches = transformer.proj_out(transformer.norm_out(image, temb))
    grid = patches.reshape(len(x_t), 4, 4, 2, 2, 4)
    return torch.einsum("nhwpqc->nchpwq", grid).reshape(x_t.shape), delta


@torch.no_grad()
def test_attached_but_inactive_equals_the_plain_model(transformer, prompts, noise, compensation):
    plain = predict_velocity(transformer, noise, 1.0, prompts)
    BlockCache(transformer, BAND, compensation).attach()
    assert torch.equal(predict_velocity(transformer, noise, 1.0, prompts), plain)


@torch.no_grad()
def test_storing_equals_the_plain_model(transformer, prompts, noise, compensation):
    plain = predict_velocity(transformer, noise, 1.0, prompts)
    cache = BlockCache(transformer, BAND, compensation).attach()
    cache.begin_step(0)
    assert torch.equal(predict_velocity(transformer, noise, 1.0, prompts), plain)


@torch.no_grad()
def test_detaching_restores_the_plain_model(transformer, prompts, noise, compensation):
    plain = predict_velocity(transformer, noise, 1.0, prompts)
    cache = BlockCache(transformer, BAND, compensation).attach()
    cache.begin_step(0)
    predict_velocity(transformer, noise, 1.0, prompts)
    cache.begin_step(1)
    assert not torch.equal(predict_velocity(transformer, noise, 1.0, prompts), plain)
    cache.detach()
    assert torch.equal(predict_velocity(transformer, noise, 1.0, prompts), plain)
    assert cache.delta is None


@torch.no_grad()
def test_plain_caching_at_the_same_input_reproduces_the_full_output(transformer, prompts, noise):
    cache = BlockCache(transformer, BAND, identity()).attach()
    cache.begin_step(0)
    full = predict_velocity(transformer, noise, 1.0, prompts)
    cache.begin_step(1)
    torch.testing.assert_close(predict_velocity(transformer, noise, 1.0, prompts), full)


@torch.no_grad()
def test_stored_residual_is_what_the_blocks_add(transformer, prompts, noise, compensation):
    _, delta = by_hand(transformer, noise, 1.0, prompts)
    cache = BlockCache(transformer, BAND, compensation).attach()
    cache.begin_step(0)
    predict_velocity(transformer, noise, 1.0, prompts)
    for stored, expected in zip(cache.delta, delta, strict=True):
        torch.testing.assert_close(stored, expected)


@torch.no_grad()
def test_reuse_equals_the_forward_written_out(transformer, prompts, noise, later, compensation):
    _, delta = by_hand(transformer, noise, 1.0, prompts)
    residual = (compensation.text(delta[0]), compensation.image(delta[1]))
    expected, _ = by_hand(transformer, later, 0.75, prompts, residual)
    cache = BlockCache(transformer, BAND, compensation).attach()
    cache.begin_step(0)
    predict_velocity(transformer, noise, 1.0, prompts)
    cache.begin_step(1)
    torch.testing.assert_close(predict_velocity(transformer, later, 0.75, prompts), expected)


@torch.no_grad()
def test_every_later_step_reuses_the_first_residual(transformer, prompts, noise, later, compensation):
    cache = BlockCache(transformer, BAND, compensation).attach()
    cache.begin_step(0)
    predict_velocity(transformer, noise, 1.0, prompts)
    cache.begin_step(1)
    second = predict_velocity(transformer, later, 0.75, prompts)
    cache.begin_step(2)
    assert torch.equal(predict_velocity(transformer, later, 0.75, prompts), second)


@torch.no_grad()
def test_reuse_does_not_run_the_band(transformer, prompts, noise, compensation):
    cache = BlockCache(transformer, BAND, compensation).attach()
    cache.begin_step(0)
    predict_velocity(transformer, noise, 1.0, prompts)
    ran = []
    for index, block in enumerate(transformer.transformer_blocks):
        block.ff.register_forward_hook(lambda *_, index=index: ran.append(index))
    cache.begin_step(1)
    predict_velocity(transformer, noise, 0.75, prompts)
    assert ran == [i for i in range(len(transformer.transformer_blocks)) if not BAND[0] <= i < BAND[1]]


@torch.no_grad()
def test_two_models_at_once_do_not_leak(architecture, prompts, noise, later, compensation):
    with seeded(8):
        models = [build_transformer(architecture).eval() for _ in range(3)]

    def alone(model: SD3Transformer2DModel, x_t: Tensor) -> Tensor:
        cache = BlockCache(model, BAND, compensation).attach()
        cache.begin_step(0)
        predict_velocity(model, x_t, 1.0, prompts)
        cache.begin_step(1)
        result = predict_velocity(model, x_t, 0.75, prompts)
        cache.detach()
        return result

    expected = [alone(models[0], noise), alone(models[1], later)]
    bystander = predict_velocity(models[2], noise, 1.0, prompts)
    caches = [BlockCache(model, BAND, compensation).attach() for model in models[:2]]
    for cache, x_t in zip(caches, (noise, later), strict=True):
        cache.begin_step(0)
        predict_velocity(cache.transformer, x_t, 1.0, prompts)
    for cache in caches:
        cache.begin_step(1)
    assert torch.equal(predict_velocity(models[0], noise, 0.75, prompts), expected[0])
    assert torch.equal(predict_velocity(models[2], noise, 1.0, prompts), bystander)
    assert torch.equal(predict_velocity(models[1], later, 0.75, prompts), expected[1])


@torch.no_grad()
def test_a_new_sampling_replaces_the_residual(transformer, prompts, noise, later, compensation):
    cache = BlockCache(transformer, BAND, compensation).attach()
    cache.begin_step(0)
    predict_velocity(transformer, noise, 1.0, prompts)
    cache.begin_step(0)
    assert cache.delta is None
    predict_velocity(transformer, later, 1.0, prompts)
    _, expected = by_hand(build_like(transformer), later, 1.0, prompts)
    torch.testing.assert_close(cache.delta[1], expected[1])


def build_like(transformer: SD3Transformer2DModel) -> SD3Transformer2DModel:
    """An unhooked model with the same weights."""
    copy = SD3Transformer2DModel.from_config(transformer.config).eval()
    copy.load_state_dict(transformer.state_dict())
    return copy


@torch.no_grad()
def test_reset_forgets(transformer, prompts, noise, compensation):
    plain = predict_velocity(transformer, noise, 1.0, prompts)
    cache = BlockCache(transformer, BAND, compensation).attach()
    cache.begin_step(0)
    predict_velocity(transformer, noise, 1.0, prompts)
    cache.begin_step(1)
    cache.reset()
    assert torch.equal(predict_velocity(transformer, noise, 1.0, prompts), plain)
    cache.begin_step(1)
    with pytest.raises(RuntimeError, match="no residual is stored"):
        predict_velocity(transformer, noise, 1.0, prompts)


@torch.no_grad()
def test_reuse_without_a_stored_residual_raises(transformer, prompts, noise, compensation):
    cache = BlockCache(transformer, BAND, compensation).attach()
    cache.begin_step(1)
    with pytest.raises(RuntimeError, match="no residual is stored"):
        predict_velocity(transformer, noise, 0.75, prompts)


def test_gradient_of_reuse_reaches_all_but_the_band(transformer, prompts, noise, later, compensation):
    cache = BlockCache(transformer, BAND, compensation).attach()
    cache.begin_step(0)
    with torch.no_grad():
        predict_velocity(transformer, noise, 1.0, prompts)
    cache.begin_step(1)
    predict_velocity(transformer, later, 0.75, prompts).square().mean().backward()
    for index, block in enumerate(transformer.transformer_blocks):
        grads = [p.grad for p in block.parameters()]
        if BAND[0] <= index < BAND[1]:
            assert all(grad is None for grad in grads), index
        else:
            assert block.attn.to_q.weight.grad.abs().sum() > 0, index
    for name, parameter in compensation.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("band", [(0, 3), (1, 6), (3, 6), (2, 2), (3, 2), (-2, 2), (5, 7), (6, 9)])
def test_bands_that_cannot_be_skipped_are_refused(band):
    with pytest.raises(ValueError, match="cached_blocks") as error:
        check_cached_blocks(band, num_layers=6)
    assert str(list(band)) in str(error.value)


@pytest.mark.parametrize("band", [(1, 2), (1, 5), (4, 5)])
def test_bands_between_the_first_and_the_last_block_are_accepted(band):
    check_cached_blocks(band, num_layers=6)


def test_a_cache_of_a_wrong_band_cannot_be_made(transformer, compensation):
    last = len(transformer.transformer_blocks)
    with pytest.raises(ValueError, match="cached_blocks"):
        BlockCache(transformer, (1, last), compensation)


def test_a_compensation_of_another_width_is_refused(transformer):
    with pytest.raises(ValueError, match="24 wide, the transformer 16"):
        BlockCache(transformer, BAND, Compensation(24, BAND))
