"""The learned correction of a reused residual (paper, section on Distill-Cache).

Shapes: D width; residuals are (B, tokens, D).
"""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class ResidualMLP(nn.Module):
    """f(x) = x + W2 gelu(W1 layernorm(x)), hidden width 2 D. W2 starts at zero, so that f starts as plain caching."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, residual: Tensor) -> Tensor:
        """The compensated residual, shaped as it came."""
        correction: Tensor = self.down(nn.functional.gelu(self.up(self.norm(residual))))
        return residual + correction


class Compensation(ModelMixin, ConfigMixin):
    """One ``ResidualMLP`` for the text stream and one for the image stream, and the band that they belong to."""

    @register_to_config
    def __init__(self, width: int, cached_blocks: tuple[int, int]) -> None:
        super().__init__()
        self.text = ResidualMLP(width)
        self.image = ResidualMLP(width)
