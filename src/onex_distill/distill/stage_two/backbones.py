"""Frozen image backbones of the discriminator by name: ShapesWorld's recogniser, or any network of timm.

The paper's CLIP ConvNeXt-XXLarge is ``convnext_xxlarge.clip_laion2b_soup``: three of its levels, and CLIP's image
embedding, which is what timm's classifier holds for a CLIP model.

Shapes: B batch; images RGB, nominally in [0, 1], (B, 3, H, W).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import Field, NonNegativeInt, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from onex_distill.parameters import Params, unknown_name
from onex_distill.storage.model_folder import ModelFolder

WEIGHTS_NAME = "model.safetensors"


class RecogniserParams(Params):
    """ShapesWorld's recogniser, which is not the evaluator that scores."""

    kind: Literal["recogniser"]


class TimmParams(Params):
    """A timm model, and how it looks at images.

    ``weights`` is a safetensors file, of timm's or of open_clip's layout, or none for the hub cache. ``size`` is the
    edge in pixels that images are resized to; none shows them as they are. ``levels`` are the feature levels that heads
    see, by their number in the network, finest first.
    """

    kind: Literal["timm"]
    name: str
    weights: Path | None
    size: PositiveInt | None
    levels: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]


BackboneParams = Annotated[RecogniserParams | TimmParams, Field(discriminator="kind")]


class TimmBackbone(nn.Module):
    """Feature levels of a timm network and what its head makes of the last: CLIP's image embedding for a CLIP model."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Any, levels: Sequence[int], size: int | None) -> None:
        """``network`` is what ``timm.create_model`` makes with its classifier; timm has no common type for it.

        Raises ValueError for a level that the network does not have, and for one that takes images of one size alone.
        """
        super().__init__()
        config = timm.data.resolve_model_data_config(network)
        channels = [info["num_chs"] for info in network.feature_info]
        _check_levels(network, levels, len(channels))
        _check_size(network, size, config["input_size"][-1])
        self.network, self.size, self.indices = network, size, list(levels)
        self.level_channels = tuple(channels[level] for level in levels)
        self.feature_width = int(network.num_classes)
        self.register_buffer("mean", torch.tensor(config["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config["std"])[:, None, None], persistent=False)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the forward in the backward pass."""
        self.network.set_grad_checkpointing()

    def levels_and_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Feature maps (B, C_i, H_i, W_i), coarsest last, and the output of the network's head, (B, feature_width)."""
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            images = nn.functional.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        last, levels = self.network.forward_intermediates((images - self.mean) / self.std, indices=self.indices)
        features: Tensor = self.network.forward_head(last)
        return levels, features


def load_timm_backbone(params: TimmParams) -> TimmBackbone:
    """The named timm model with pretrained weights, from a safetensors file or else from the hub cache.

    Nothing is downloaded and no pickle is read. Raises ValueError with one line for an unknown name and for weights
    that are missing, unreadable or another model's.
    """
    path = _find_weights(params.name, params.weights)
    try:
        overlay = {"state_dict": load_file(path)}
        network = timm.create_model(params.name, pretrained=True, pretrained_cfg_overlay=overlay)
    except (SafetensorError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"weights {path} are not those of the timm model {params.name!r}: {reason}") from error
    return TimmBackbone(network, params.levels, params.size)


def load_backbone(params: BackboneParams, recogniser: ModelFolder) -> nn.Module:
    """The backbone that the parameters name. Raises ValueError as ``load_timm_backbone`` does."""
    if isinstance(params, TimmParams):
        return load_timm_backbone(params)
    network: nn.Module = recogniser.load()
    return network


def check_backbone(params: BackboneParams) -> None:
    """Raise ValueError when the named weights are not there, without reading them."""
    if isinstance(params, TimmParams):
        _find_weights(params.name, params.weights)


def build_backbone(params: BackboneParams, recogniser: ModelFolder) -> nn.Module:
    """The backbone's architecture without weights, on the meta device. Raises ValueError for an unknown name."""
    if isinstance(params, TimmParams):
        _check_name(params.name)
        with torch.device("meta"):
            return TimmBackbone(timm.create_model(params.name), params.levels, params.size)
    network: nn.Module = recogniser.build()
    return network


def _check_name(name: str) -> None:
    known = [*timm.list_models(), *timm.list_pretrained()]
    if name not in known:
        raise ValueError(unknown_name("timm model", name, known))


def _find_weights(name: str, weights: Path | None) -> Path:
    _check_name(name)
    path = _cached_weights(name) if weights is None else weights
    if path.suffix != ".safetensors" or not path.is_file():
        raise ValueError(f"weights {path} of the backbone {name!r} are no .safetensors file; correct the path")
    return path


def _cached_weights(name: str) -> Path:
    config = timm.get_pretrained_cfg(name)
    repository = config.hf_hub_id if config is not None else None
    if repository is None:
        raise ValueError(f"timm has no published weights for {name!r}; give a safetensors file")
    try:
        return Path(hf_hub_download(repository, WEIGHTS_NAME, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"the weights of the backbone {name!r} are not in the hub cache; fetch them once with "
            f"'hf download {repository} {WEIGHTS_NAME}', or give a safetensors file"
        ) from error


def _check_levels(network: Any, levels: Sequence[int], count: int) -> None:
    if list(levels) != sorted(set(levels)) or max(levels) >= count:
        raise ValueError(
            f"levels {list(levels)} of the backbone {network.pretrained_cfg['architecture']!r} must be ascending "
            f"numbers from 0 to {count - 1}"
        )


def _check_size(network: Any, size: int | None, own: int) -> None:
    if network.pretrained_cfg.get("fixed_input_size") and size != own:
        raise ValueError(
            f"the backbone {network.pretrained_cfg['architecture']!r} takes images of {own} pixels alone, not size "
            f"{size}; set its size to {own}"
        )
