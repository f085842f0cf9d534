"""Weights between formats: pickles to safetensors, names of original checkpoints to those of transformers.

``state`` is a mapping of names to tensors throughout.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from onex_distill.storage.files import complete

State = dict[str, Tensor]

OPEN_CLIP_NAMES = (
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.", ".self_attn."),
)
BLIP_NAMES = (
    (r"^blip\.", ""),
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.blocks\.", "vision_model.encoder.layers."),
    (r"(vision_model.*)\.norm([12])\.", r"\1.layer_norm\2."),
    (r"(vision_model.*)\.attn\.proj\.", r"\1.self_attn.projection."),
    (r"(vision_model.*)\.attn\.", r"\1.self_attn."),
)


def read_state(path: Path) -> State:
    """The tensors of a safetensors file. Raises ValueError for a damaged one."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); fetch or copy it again") from error


def convert_pickle(pickle: Path, target: Path) -> None:
    """Write the tensors of a pickle as safetensors; nothing inside the pickle is executed.

    A ``state_dict`` inside is taken in place of what is around it. Raises ValueError for a file that is no pickle of
    tensors alone.
    """
    try:
        content: Any = torch.load(pickle, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{pickle} is no pickle of tensors alone; fetch or copy it again") from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    tensors = {name: value.clone().contiguous() for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{pickle} holds no tensors by name; take the file that the scorer names")
    with complete(target) as partial:
        save_file(tensors, partial)


def transformers_clip(state: State) -> State:
    """A CLIP in the names of transformers, from those or from open_clip's (HPSv2's are the same)."""
    if "visual.conv1.weight" not in state:
        return _without_positions(state)
    renamed = _rename({name: value for name, value in state.items() if name != "attn_mask"}, OPEN_CLIP_NAMES)
    for name in ("visual_projection.weight", "text_projection.weight"):
        renamed[name] = renamed[name].T.contiguous()
    return _split_attention(renamed)


def transformers_blip(state: State) -> State:
    """ImageReward's BLIP in the names of transformers; the reward's ``mlp`` stays as it is."""
    renamed = _rename(state, BLIP_NAMES)
    return {name: value for name, value in _without_positions(renamed).items() if not name.startswith("mlp.")}


def build(model_class: Any, config: Any, state: State, described: Path, **arguments: Any) -> Any:
    """A transformers model from a configuration and all of its weights, without gradients, in float32 unless told.

    Raises ValueError when weights are missing or of another shape.

    Args:
        model_class: A class of transformers.
        config: Its configuration.
        state: Weights by name.
        described: The file that messages name.
        **arguments: Further arguments of ``from_pretrained``.

    Returns:
        The model in evaluation mode.

    Raises:
        ValueError: Weights are missing or of another shape.
    """
    model, info = model_class.from_pretrained(
        None,
        config=config,
        state_dict=state,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **{"dtype": torch.float32, **arguments},
    )
    wrong = sorted(str(name) for key in ("missing_keys", "mismatched_keys") for name in info[key])
    if wrong:
        raise ValueError(
            f"{described} does not hold the weights of its architecture ({len(wrong)} tensors differ, the first is "
            f"{wrong[0]}); correct the scorer's files"
        )
    return model.eval().requires_grad_(False)


def _rename(state: State, names: tuple[tuple[str, str], ...]) -> State:
    renamed = {}
    for name, value in state.items():
        new = name
        for pattern, replacement in names:
            new = re.sub(pattern, replacement, new)
        renamed[new] = value
    return renamed


def _split_attention(state: State) -> State:
    """Attention's joint projection as one for queries, keys and values each."""
    split: State = {}
    for name, value in state.items():
        stem, joint, kind = name.partition("in_proj_")
        if joint:
            split |= {f"{stem}{part}_proj.{kind}": piece for part, piece in zip("qkv", value.chunk(3), strict=True)}
        else:
            split[name] = value
    return {name: value.contiguous() for name, value in split.items()}


def _without_positions(state: State) -> State:
    """Without the indices that older releases saved."""
    return {name: value for name, value in state.items() if not name.endswith("position_ids")}
