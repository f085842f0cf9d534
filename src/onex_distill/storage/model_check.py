"""What is wrong with a model's folder, by its config and the headers of its weights; no weight is read."""

import inspect
import json
from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from torch import nn

from onex_distill.parameters import unknown_name
from onex_distill.storage.files import absent
from onex_distill.storage.model_folder import ModelFolder, class_of
from onex_distill.storage.weights import FLOATS, TensorHeader, find_weights, read_headers

CONFIG = "config.json"


def check_model(folder: ModelFolder) -> None:
    """Raise ValueError with one line unless a folder's weights are complete, in floating point, and its config's.

    A config of a quantised model or with a key that its class does not know is refused, as are LoRA weights.
    """
    check_config(folder)
    weights = find_weights(folder.path)
    headers = read_headers(weights)
    try:
        model = folder.build()
    except Exception as error:  # whatever a library raises for values that it does not expect
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{folder.path / CONFIG} describes no {folder.class_name}: {reason}") from error
    if isinstance(model, ModelMixin) and len(weights.files) == 1:
        model._fix_state_dict_keys_on_load(headers)  # as diffusers does for names of older releases
    _compare(folder.path, model, headers)


def check_config(folder: ModelFolder) -> None:
    """Raise ValueError with one line for a missing or damaged config, a quantised one, and an unknown key."""
    path = folder.path / CONFIG
    config = read_json(path)
    if config.get("quantization_config"):
        raise ValueError(
            f"{path} is that of a quantised model (quantization_config); give the model in float32, float16 or bfloat16"
        )
    model_class = class_of(folder.class_name)
    if issubclass(model_class, ModelMixin):
        known = set(inspect.signature(model_class.__init__).parameters) - {"self"}
        for name in config:
            if not name.startswith("_") and name not in known:
                line = unknown_name(f"key of {model_class.__name__}", name, known)
                raise ValueError(f"{path}: {line}; the installed diffusers would leave it out")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError with one line when it is missing, damaged or something else."""
    if not path.is_file():
        raise ValueError(f"{absent(path)}; copy the whole folder again")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path} is missing or damaged ({reason}); copy the whole folder again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is missing or damaged (no JSON object); copy the whole folder again")
    return content


def _compare(path: Path, model: nn.Module, headers: dict[str, TensorHeader]) -> None:
    """Raise ValueError for what is missing, misshapen, quantised or, with diffusers, too much."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = getattr(model, "_tied_weights_keys", None) or {}
    missing = sorted(name for name in own.keys() - headers.keys() if name not in tied)
    unexpected = sorted(headers.keys() - own.keys())
    if lora := [name for name in headers if "lora_" in name]:
        raise ValueError(f"{path} holds LoRA weights ({lora[0]}); fuse them into the model and save it again")
    if missing:
        raise ValueError(f"{path} lacks {len(missing)} weights of its config, the first is {missing[0]}; copy it again")
    for name in own.keys() & headers.keys():
        if headers[name].shape != own[name]:
            raise ValueError(
                f"{path} does not hold the weights of its config.json: {name} is {list(headers[name].shape)} and "
                f"should be {list(own[name])}; copy the whole folder again"
            )
        if headers[name].dtype not in FLOATS and model.state_dict()[name].is_floating_point():
            raise ValueError(
                f"{path} is quantised ({name} is {headers[name].dtype}); give the model in float32, float16 or bfloat16"
            )
    if unexpected and isinstance(model, ModelMixin):
        raise ValueError(
            f"{path} holds {len(unexpected)} weights that its config.json does not know, the first is {unexpected[0]}; "
            "copy the whole folder again"
        )
