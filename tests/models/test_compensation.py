import torch
from torch import nn

from onex_distill.models.compensation import Compensation, ResidualMLP


def perturbed(width: int = 8) -> Compensation:
    torch.manual_seed(0)
    module = Compensation(width, (2, 5))
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def test_starts_as_plain_caching():
    residual = torch.randn(2, 5, 8)
    module = Compensation(8, (1, 3))
    assert torch.equal(module.text(residual), residual)
    assert torch.equal(module.image(residual), residual)


def test_is_a_residual_mlp_over_each_token():
    mlp = perturbed().text
    residual = torch.randn(2, 5, 8)
    hidden = mlp.up(nn.functional.layer_norm(residual, (8,), mlp.norm.weight, mlp.norm.bias))
    expected = residual + nn.functional.gelu(hidden) @ mlp.down.weight.T + mlp.down.bias
    torch.testing.assert_close(mlp(residual), expected)
    torch.testing.assert_close(mlp(residual[:, 2:3]), mlp(residual)[:, 2:3])


def test_the_first_gradient_is_not_stuck_at_zero():
    mlp = ResidualMLP(8)
    mlp(torch.randn(2, 5, 8)).square().sum().backward()
    assert mlp.down.weight.grad.abs().sum() > 0


def test_save_and_load_round_trip(tmp_path):
    module = perturbed()
    module.save_pretrained(tmp_path)
    loaded = Compensation.from_pretrained(tmp_path)
    residual = torch.randn(2, 5, 8)
    assert torch.equal(loaded.text(residual), module.text(residual))
    assert torch.equal(loaded.image(residual), module.image(residual))
    assert (loaded.config.width, tuple(loaded.config.cached_blocks)) == (8, (2, 5))
