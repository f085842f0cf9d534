import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from onex_distill.cache.compensation import Compensation, CompensationParams
from onex_distill.engine.randomness import seeded

WIDTH = 8
CANDIDATES = (((2, 5),), ((1, 2), (2, 5)))
KINDS = {
    "identity": {"kind": "identity"},
    "residual_mlp": {"kind": "residual_mlp"},
    "input_residual_mlp": {"kind": "input_residual_mlp"},
    "linear": {"kind": "linear"},
    "low_rank": {"kind": "low_rank", "rank": 3},
    "sigma_residual_mlp": {"kind": "sigma_residual_mlp"},
}
LEARNED = [name for name in KINDS if name != "identity"]
SIGMA = torch.tensor([0.75, 0.5])


@pytest.fixture
def entered() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, WIDTH, generator=draws), torch.randn(2, 5, WIDTH, generator=draws)


@pytest.fixture
def residual() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, WIDTH, generator=draws), torch.randn(2, 5, WIDTH, generator=draws)


def perturbed(kind: str) -> Compensation:
    with seeded(0):
        module = Compensation(WIDTH, CANDIDATES, **KINDS[kind])
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_starts_as_plain_caching(kind, residual, entered):
    module = Compensation(WIDTH, CANDIDATES, **KINDS[kind])
    for band in module.bands:
        assert all(map(torch.equal, module(band, residual, entered, SIGMA), residual))


def test_has_one_function_a_band_and_stream(residual, entered):
    module = perturbed("linear")
    assert module.bands == ((1, 2), (2, 5))
    outputs = [stream for band in module.bands for stream in module(band, (residual[0],) * 2, (entered[0],) * 2, SIGMA)]
    for i, first in enumerate(outputs):
        assert not any(torch.equal(first, other) for other in outputs[i + 1 :])


def test_residual_mlp_is_the_papers(residual, entered):
    module = perturbed("residual_mlp")
    mlp, x = module.image["2_5"], residual[1]
    hidden = mlp.up(nn.functional.layer_norm(x, (WIDTH,), mlp.norm.weight, mlp.norm.bias))
    expected = x + nn.functional.gelu(hidden) @ mlp.down.weight.T + mlp.down.bias
    torch.testing.assert_close(module((2, 5), residual, entered, SIGMA)[1], expected)


def test_the_input_stands_beside_the_residual(residual, entered):
    module = perturbed("input_residual_mlp")
    mlp, x, h = module.image["2_5"], residual[1], entered[1]
    norms = ((x, mlp.norm), (h, mlp.norm_entered))
    seen = torch.cat([nn.functional.layer_norm(s, (WIDTH,), norm.weight, norm.bias) for s, norm in norms], dim=-1)
    expected = x + nn.functional.gelu(mlp.up(seen)) @ mlp.down.weight.T + mlp.down.bias
    torch.testing.assert_close(module((2, 5), residual, entered, SIGMA)[1], expected)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "input_residual_mlp"])
def test_the_other_kinds_do_not_see_the_input(kind, residual, entered):
    module, other = perturbed(kind), tuple(-stream for stream in entered)
    assert all(map(torch.equal, module((2, 5), residual, entered, SIGMA), module((2, 5), residual, other, SIGMA)))


def test_linear_and_low_rank_are_matrices(residual):
    x = residual[0]
    linear = perturbed("linear").text["2_5"]
    torch.testing.assert_close(linear(x, x, SIGMA), x + x @ linear.up.weight.T + linear.up.bias)
    low = perturbed("low_rank").text["2_5"]
    product = low.up.weight @ low.down.weight
    assert torch.linalg.matrix_rank(product) == 3
    torch.testing.assert_close(low(x, x, SIGMA), x + x @ product.T + low.up.bias)


def test_sigma_modulates_the_norm_of_each_sample(residual):
    mlp, x = perturbed("sigma_residual_mlp").image["2_5"], residual[1]
    embedded = get_timestep_embedding(1000 * SIGMA, 64, flip_sin_to_cos=True, downscale_freq_shift=0)
    condition = nn.functional.silu(mlp.embedding(embedded))
    scale, shift = mlp.norm.linear(condition).chunk(2, dim=1)
    modulated = nn.functional.layer_norm(x, (WIDTH,), eps=1e-5) * (1 + scale[:, None]) + shift[:, None]
    expected = x + mlp.down(nn.functional.gelu(mlp.up(modulated)))
    torch.testing.assert_close(mlp(x, x, SIGMA), expected)
    other = mlp(x, x, torch.tensor([0.75, 0.9]))
    torch.testing.assert_close(other[0], expected[0])
    assert not torch.allclose(other[1], expected[1], atol=1e-3)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "sigma_residual_mlp"])
def test_the_other_kinds_do_not_see_sigma(kind, residual, entered):
    module = perturbed(kind)
    assert all(map(torch.equal, module((2, 5), residual, entered, SIGMA), module((2, 5), residual, entered, SIGMA / 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_is_corrected_alone(kind, residual, entered):
    module = perturbed(kind)
    together = module((2, 5), residual, entered, SIGMA)
    alone = module((2, 5), *(tuple(stream[:, 1:2] for stream in streams) for streams in (residual, entered)), SIGMA)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[:, 1:2], b)


@pytest.mark.parametrize("kind", LEARNED)
def test_the_first_gradient_is_not_stuck_at_zero(kind, residual, entered):
    module = Compensation(WIDTH, CANDIDATES, **KINDS[kind])
    sum(stream.square().sum() for stream in module((2, 5), residual, entered, SIGMA)).backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_identity_has_no_parameters():
    assert not list(perturbed("identity").parameters())


@pytest.mark.parametrize(
    ("kind", "products"),
    [("residual_mlp", 4 * 64), ("input_residual_mlp", 6 * 64), ("linear", 64), ("low_rank", 48), ("identity", 0)],
)
def test_cost_a_token(kind, products, residual, entered):
    module, tokens = perturbed(kind), 2 * 3 + 2 * 5
    with FlopCounterMode(display=False) as counter:
        module((2, 5), residual, entered, SIGMA)
    assert counter.get_total_flops() == 2 * products * tokens


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_round_trip(kind, residual, entered, tmp_path):
    module = perturbed(kind)
    module.save_pretrained(tmp_path)
    loaded = Compensation.from_pretrained(tmp_path, local_files_only=True, use_safetensors=True)
    assert (loaded.candidates, loaded.bands, loaded.config.kind) == (CANDIDATES, ((1, 2), (2, 5)), kind)
    assert all(map(torch.equal, loaded((2, 5), residual, entered, SIGMA), module((2, 5), residual, entered, SIGMA)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_half(kind, dtype, residual, entered):
    halves = [tuple(stream.to(dtype) for stream in streams) for streams in (residual, entered)]
    outputs = perturbed(kind).to(dtype)((2, 5), *halves, SIGMA)
    assert all(output.dtype == dtype for output in outputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "residual_mpl"}, "unknown compensation kind 'residual_mpl'; did you mean 'residual_mlp'"),
        ({"kind": "low_rank"}, "'low_rank' with rank None: give a rank"),
        ({"kind": "linear", "rank": 2}, "'linear' with rank 2"),
    ],
)
def test_bad_kinds_are_answered_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        Compensation(WIDTH, CANDIDATES, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_discriminated_by_kind(kind, residual):
    params = TypeAdapter(CompensationParams).validate_python(KINDS[kind])
    assert params.model_dump() == KINDS[kind]
    Compensation(WIDTH, CANDIDATES, **params.model_dump())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "low_rank"}, "low_rank.rank\n  Field required"),
        ({"kind": "linear", "rank": 2}, "unknown parameter 'rank'"),
        ({"kind": "mlp"}, "tag 'mlp' .* does not match any of the expected tags"),
        ({}, "Unable to extract tag"),
    ],
)
def test_parameters_of_another_kind_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(CompensationParams).validate_python(given)
