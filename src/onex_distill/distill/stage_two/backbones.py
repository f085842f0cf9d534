"""Frozen image backbones of the discriminator by name: ShapesWorld's recogniser, or any network of timm.

The paper's CLIP ConvNeXt-XXLarge is ``convnext_xxlarge.clip_laion2b_soup``.

Shapes: B batch; images RGB in [0, 1], (B, 3, H, W).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import Field
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
    """A timm model with its weights: a safetensors file, or none for the hub cache."""

    kind: Literal["timm"]
    name: str
    weights: Path | None


BackboneParams = Annotated[RecogniserParams | TimmParams, Field(discriminator="kind")]


class TimmBackbone(nn.Module):
    """The feature levels of a timm network, which sees images resized and normalised as in its own training."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Any) -> None:
        """``network`` is what ``timm.create_model`` makes with ``features_only``; timm has no common type for it."""
        super().__init__()
        config = timm.data.resolve_model_data_config(network)
        self.network = network
        self.size = tuple(config["input_size"][1:])
        self.level_channels = tuple(network.feature_info.channels())
        self.feature_width = self.level_channels[-1]
        self.register_buffer("mean", torch.tensor(config["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config["std"])[:, None, None], persistent=False)

    def levels_and_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Feature maps (B, C_i, H_i, W_i), coarsest last, and the spatial mean of the last, (B, C_last)."""
        if images.shape[-2:] != self.size:
            images = nn.functional.interpolate(images, self.size, mode="bicubic", antialias=True)
        levels: list[Tensor] = self.network((images - self.mean) / self.std)
        return levels, levels[-1].mean((2, 3))


def load_timm_backbone(name: str, weights: Path | None) -> TimmBackbone:
    """The named timm model with pretrained weights, from a safetensors file or else from the hub cache.

    Nothing is downloaded and no pickle is read. Raises ValueError with one line for an unknown name and for weights
    that are missing, unreadable or another model's.
    """
    path = _find_weights(name, weights)
    try:
        state = load_file(path)
        overlay = {"state_dict": _without_classifier(name, state), "num_classes": 0}
        network = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, features_only=True
        )
    except (SafetensorError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"weights {path} are not those of the timm model {name!r}: {reason}") from error
    return TimmBackbone(network)


def load_backbone(params: BackboneParams, recogniser: ModelFolder) -> nn.Module:
    """The backbone that the parameters name. Raises ValueError as ``load_timm_backbone`` does."""
    if isinstance(params, TimmParams):
        return load_timm_backbone(params.name, params.weights)
    network: nn.Module = recogniser.load()
    return network


def check_backbone(params: BackboneParams) -> None:
    """Raise ValueError when the named weights are not there, without reading them."""
    if isinstance(params, TimmParams):
        _find_weights(params.name, params.weights)


def backbone_parameters(params: BackboneParams) -> int:
    """How many weights a timm backbone has, from its name alone; ShapesWorld's small recogniser counts as none.

    Raises ValueError for an unknown name.
    """
    if not isinstance(params, TimmParams):
        return 0
    _check_name(params.name)
    with torch.device("meta"):
        network = timm.create_model(params.name, num_classes=0, features_only=True)
    return sum(parameter.numel() for parameter in network.parameters())


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


def _without_classifier(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights without the classifier, which feature levels do not have; the rest is loaded strictly."""
    classifier = timm.get_pretrained_cfg(name).classifier or ()
    heads = (classifier,) if isinstance(classifier, str) else classifier
    return {key: tensor for key, tensor in state.items() if not key.startswith(tuple(f"{head}." for head in heads))}
