"""The learned correction of a reused residual, by name (paper, section on Distill-Cache).

Every kind starts exactly as plain caching, f(x) = x. Cost per token of width D, in multiply-adds: ``residual_mlp``
4 D^2, ``input_residual_mlp`` 6 D^2, ``linear`` D^2, ``low_rank`` 2 D rank; a block of Stable Diffusion 3 costs 12 D^2
and its attention.

Shapes: B batch, D width; residuals and what enters the band are (B, tokens, D); sigma is (B,).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.normalization import AdaLayerNormContinuous
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from onex_distill.cache.plan import Band, Bands, as_bands
from onex_distill.parameters import Params, unknown_name

Streams = tuple[Tensor, Tensor]
SIGMA_CHANNELS = 64


class FunctionParams(Params):
    """A compensation without settings of its own."""

    kind: Literal["identity", "residual_mlp", "input_residual_mlp", "linear", "sigma_residual_mlp"]


class LowRankParams(Params):
    """A linear map through ``rank`` dimensions."""

    kind: Literal["low_rank"]
    rank: PositiveInt


CompensationParams = Annotated[FunctionParams | LowRankParams, Field(discriminator="kind")]


class PlainReuse(nn.Module):
    """f(x) = x, plain caching."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("empty", torch.empty(0))  # a folder without any tensor could not be loaded

    def forward(self, residual: Tensor, entered: Tensor, sigma: Tensor) -> Tensor:
        """The residual as it came."""
        return residual


class ResidualMLP(nn.Module):
    """f(x) = x + W2 gelu(W1 layernorm(x)), hidden width 2 D. W2 starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = _zeroed(nn.Linear(2 * width, width))

    def forward(self, residual: Tensor, entered: Tensor, sigma: Tensor) -> Tensor:
        """The compensated residual, shaped as it came."""
        correction: Tensor = self.down(nn.functional.gelu(self.up(self.norm(residual))))
        return residual + correction


class InputResidualMLP(nn.Module):
    """f(x) = x + W2 gelu(W1 [layernorm(x), layernorm(h)]), h being what enters the band in the reusing step.

    The stored residual belongs to an older input; with the new one beside it, a token can tell what has changed since.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.norm_entered = nn.LayerNorm(width)
        self.up = nn.Linear(2 * width, 2 * width)
        self.down = _zeroed(nn.Linear(2 * width, width))

    def forward(self, residual: Tensor, entered: Tensor, sigma: Tensor) -> Tensor:
        """The compensated residual, shaped as it came."""
        seen = torch.cat([self.norm(residual), self.norm_entered(entered)], dim=-1)
        correction: Tensor = self.down(nn.functional.gelu(self.up(seen)))
        return residual + correction


class SigmaResidualMLP(nn.Module):
    """A ``ResidualMLP`` whose norm is scaled and shifted by an embedding of the reusing step's sigma (as in DiT)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequencies = Timesteps(SIGMA_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.embedding = TimestepEmbedding(SIGMA_CHANNELS, width)
        self.norm = AdaLayerNormContinuous(width, width, elementwise_affine=False)
        self.up = nn.Linear(width, 2 * width)
        self.down = _zeroed(nn.Linear(2 * width, width))

    def forward(self, residual: Tensor, entered: Tensor, sigma: Tensor) -> Tensor:
        """The compensated residual, shaped as it came."""
        # the frequencies are made for timesteps, 1000 sigma, and are computed in float32
        condition = self.embedding(self.frequencies(1000 * sigma).to(residual.dtype))
        correction: Tensor = self.down(nn.functional.gelu(self.up(self.norm(residual, condition))))
        return residual + correction


class ResidualLinear(nn.Module):
    """f(x) = x + W x + b with W = b = 0 at the start; with a rank, W = U V and U = 0."""

    def __init__(self, width: int, rank: int | None = None) -> None:
        super().__init__()
        self.down = nn.Identity() if rank is None else nn.Linear(width, rank, bias=False)
        self.up = _zeroed(nn.Linear(rank or width, width))

    def forward(self, residual: Tensor, entered: Tensor, sigma: Tensor) -> Tensor:
        """The compensated residual, shaped as it came."""
        correction: Tensor = self.up(self.down(residual))
        return residual + correction


class Compensation(ModelMixin, ConfigMixin):
    """One function per band and stream, and the sets of bands that they were trained to be used in.

    ``candidates`` are sets of bands, in order of preference; a band of several sets has one function. ``rank`` belongs
    to the kind ``low_rank``. Raises ValueError for an unknown kind, a rank missing or out of place, and bad bands.
    """

    @register_to_config
    def __init__(
        self, width: int, candidates: Sequence[Sequence[Sequence[int]]], kind: str, rank: int | None = None
    ) -> None:
        super().__init__()
        self.text = nn.ModuleDict({key_of(band): _function(kind, width, rank) for band in self.bands})
        self.image = nn.ModuleDict({key_of(band): _function(kind, width, rank) for band in self.bands})

    @classmethod
    def load_candidates(cls, folder: Path) -> tuple[Bands, ...]:
        """The sets of bands of a saved compensation, from its small configuration alone."""
        return tuple(as_bands(bands) for bands in cls.load_config(folder, local_files_only=True)["candidates"])

    @property
    def candidates(self) -> tuple[Bands, ...]:
        """The sets of bands, as tuples."""
        return tuple(as_bands(bands) for bands in self.config.candidates)

    @property
    def bands(self) -> Bands:
        """Every band that has a function, ascending; bands of different candidates may overlap."""
        return tuple(sorted({band for bands in self.candidates for band in bands}))

    def forward(self, band: Band, residual: Streams, entered: Streams, sigma: Tensor) -> Streams:
        """The compensated residuals of one band, to be added to what enters it.

        Args:
            band: A half-open range of blocks.
            residual: What the band added when it last ran: text (B, L, D) and image (B, N, D).
            entered: What enters the band now, of the same shapes.
            sigma: The levels of this step, (B,).

        Returns:
            Text and image, of the same shapes.
        """
        text: Tensor = self.text[key_of(band)](residual[0], entered[0], sigma)
        image: Tensor = self.image[key_of(band)](residual[1], entered[1], sigma)
        return text, image


def key_of(band: Band) -> str:
    """The name of a band's functions within the modules ``text`` and ``image``."""
    return f"{band[0]}_{band[1]}"


def _function(kind: str, width: int, rank: int | None) -> nn.Module:
    if (kind == "low_rank") != (rank is not None):
        raise ValueError(f"compensation kind {kind!r} with rank {rank}: give a rank to 'low_rank' and to no other kind")
    match kind:
        case "identity":
            return PlainReuse()
        case "residual_mlp":
            return ResidualMLP(width)
        case "input_residual_mlp":
            return InputResidualMLP(width)
        case "linear" | "low_rank":
            return ResidualLinear(width, rank)
        case "sigma_residual_mlp":
            return SigmaResidualMLP(width)
    kinds = ("identity", "residual_mlp", "input_residual_mlp", "linear", "low_rank", "sigma_residual_mlp")
    raise ValueError(unknown_name("compensation kind", kind, kinds))


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
