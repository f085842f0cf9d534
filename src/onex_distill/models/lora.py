"""Low-rank adapters on the attention and feed-forward projections of every block, both streams."""

from pathlib import Path
from typing import Any

from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from onex_distill.parameters import Params

DEFAULT = "default"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")


class LoraParams(Params):
    """Rank and alpha; the update is scaled by alpha / rank."""

    rank: PositiveInt
    alpha: PositiveFloat


def add_lora(transformer: SD3Transformer2DModel, params: LoraParams, name: str = DEFAULT) -> PeftModel:
    """Freeze the transformer and add trainable adapters inside it; ``merge_lora`` folds them in."""
    return get_peft_model(transformer, _config(params), adapter_name=name)


def add_second_lora(model: PeftModel, params: LoraParams, name: str) -> None:
    """Further adapters of the same kind beside those that are there; one set is active at a time."""
    model.add_adapter(name, _config(params))


def activate(model: PeftModel, name: str | None) -> None:
    """Let one set of adapters take part in forwards, or none; all stay trainable.

    peft freezes what is not active, and autograd would then drop the gradients of a graph that it is already in.
    """
    model.base_model.set_adapter([] if name is None else [name])
    for adapter in model.peft_config:
        for parameter in adapter_parameters(model, adapter):
            parameter.requires_grad_(True)


def adapter_parameters(model: PeftModel, name: str) -> list[nn.Parameter]:
    """The weights of one set of adapters, in a fixed order."""
    return list(named_adapter_parameters(model, name).values())


def named_adapter_parameters(model: PeftModel, name: str) -> dict[str, nn.Parameter]:
    """The same weights by name."""
    return {key: parameter for key, parameter in model.named_parameters() if f".{name}." in key and "lora_" in key}


def merge_lora(model: PeftModel) -> SD3Transformer2DModel:
    """The plain transformer with the adapters merged into its weights, so that ``from_pretrained`` loads it."""
    return model.merge_and_unload()


def _config(params: LoraParams) -> LoraConfig:
    return LoraConfig(r=params.rank, lora_alpha=params.alpha, target_modules=[*ATTENTION, *FEED_FORWARD])


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapters, with rank and alpha, as what ``StableDiffusion3Pipeline.load_lora_weights(folder)`` reads.

    They fit the transformer that ``add_lora`` was given, and are left as they are.
    """
    prefix = "base_model.model."
    weights = {name.removeprefix(prefix): tensor for name, tensor in get_peft_model_state_dict(model).items()}
    lora = model.peft_config[DEFAULT]
    config = {"r": lora.r, "lora_alpha": lora.lora_alpha, "target_modules": sorted(lora.target_modules)}
    StableDiffusion3Pipeline.save_lora_weights(
        folder, transformer_lora_layers=weights, transformer_lora_adapter_metadata=config
    )


class AdapterState:
    """One set of adapters as something that a checkpoint can hold."""

    def __init__(self, model: PeftModel, name: str = DEFAULT) -> None:
        self.model = model
        self.name = name

    def state_dict(self) -> dict[str, Tensor]:
        """Adapter weights."""
        return get_peft_model_state_dict(self.model, adapter_name=self.name)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        set_peft_model_state_dict(self.model, state_dict, adapter_name=self.name)
