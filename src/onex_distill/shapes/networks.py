"""Small convolutional readers of ShapesWorld.

The evaluator scores images (alignment, FID features, diversity); the recogniser lends its frozen features to the
discriminator of stage two. They are different networks trained apart, so that no student is graded by the network
that it was trained against.

Shapes: B batch, H W image size; images are RGB in [0, 1], (B, 3, H, W).
"""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from onex_distill.shapes.world import IMAGE_SIZE, VALUES, Attributes


class ShapesReader(ModelMixin, ConfigMixin):
    """Reads the six attributes of an image; ``features`` is the input of FID, diversity, precision and recall."""

    @register_to_config
    def __init__(self, channels: tuple[int, ...] = (24, 48, 96), feature_dim: int = 64) -> None:
        super().__init__()
        widths = (3, *channels)
        strides = (1,) + (2,) * (len(channels) - 1)
        self.stages = nn.ModuleList(
            _stage(a, b, stride) for a, b, stride in zip(widths, channels, strides, strict=False)
        )
        last_size = IMAGE_SIZE // 2 ** (len(channels) - 1)
        self.embed = nn.Sequential(nn.Flatten(), nn.Linear(channels[-1] * last_size**2, feature_dim), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(feature_dim, len(values)) for name, values in VALUES.items()})

    def levels(self, images: Tensor) -> list[Tensor]:
        """Feature maps of every stage, coarsest last: (B, C_i, H_i, W_i)."""
        hidden = images * 2 - 1
        maps = []
        for stage in self.stages:
            hidden = stage(hidden)
            maps.append(hidden)
        return maps

    def features(self, images: Tensor) -> Tensor:
        """Pooled features, (B, feature_dim)."""
        return self.levels_and_features(images)[1]

    def levels_and_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """``levels`` and ``features`` of one pass."""
        levels = self.levels(images)
        features: Tensor = self.embed(levels[-1])
        return levels, features

    @property
    def level_channels(self) -> tuple[int, ...]:
        """C_i of every level."""
        return tuple(self.config.channels)

    @property
    def feature_width(self) -> int:
        """The width of ``features``."""
        return int(self.config.feature_dim)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of every attribute, (B, number of values) each."""
        features = self.features(images)
        return {name: head(features) for name, head in self.heads.items()}

    def read(self, images: Tensor) -> Attributes:
        """The most likely value of every attribute, int64 (B,) each."""
        return {name: logits.argmax(1) for name, logits in self(images).items()}


def _stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1),
        nn.GroupNorm(8, out_channels),
        nn.SiLU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.GroupNorm(8, out_channels),
        nn.SiLU(),
    )
