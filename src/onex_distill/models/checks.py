"""Checks of a Stable Diffusion 3 folder, made from its small JSON files before anything expensive."""

import json
from functools import partial
from pathlib import Path
from typing import Any

REQUIRED = (
    "transformer",
    "vae",
    "scheduler",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
)


def check_teacher_folder(folder: Path) -> None:
    """Raise ValueError with one line when the folder is no complete Stable Diffusion 3 pipeline.

    The T5 encoder and its tokenizer may be absent together, as in the published pipelines.
    """
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} is no diffusers pipeline: it has no model_index.json; point it to a teacher folder")
    declared = _json(folder / "model_index.json")
    if "StableDiffusion3" not in str(declared.get("_class_name")):
        raise ValueError(f"{folder} holds a {declared.get('_class_name')}, not a StableDiffusion3Pipeline")
    expected = list(REQUIRED) + [n for n in ("text_encoder_3", "tokenizer_3") if declared.get(n, [None])[0]]
    missing = [name for name in expected if not (folder / name).is_dir()]
    if missing:
        raise ValueError(f"{folder} lacks the component {missing[0]!r}; copy the whole teacher folder")
    _check_widths(folder, "text_encoder_3" in expected)


def _check_widths(folder: Path, has_t5: bool) -> None:
    """Raise ValueError when the transformer is no Stable Diffusion 3 one, or the components' widths disagree."""
    transformer = _json(folder / "transformer/config.json")
    fields = partial(_field, folder)
    if transformer.get("_class_name") != "SD3Transformer2DModel":
        raise ValueError(
            f"{folder / 'transformer'} holds a {transformer.get('_class_name')}, not an SD3Transformer2DModel; "
            "the teacher must be a Stable Diffusion 3 or 3.5 model"
        )
    clip = [fields(f"{name}/config.json", "projection_dim") for name in ("text_encoder", "text_encoder_2")]
    _agree(
        "the pooled text width",
        sum(clip),
        "transformer.pooled_projection_dim",
        fields("transformer/config.json", "pooled_projection_dim"),
    )
    channels, in_channels = (
        fields("vae/config.json", "latent_channels"),
        fields("transformer/config.json", "in_channels"),
    )
    _agree("vae.latent_channels", channels, "transformer.in_channels", in_channels)
    if has_t5:
        t5, width = (
            fields("text_encoder_3/config.json", "d_model"),
            fields("transformer/config.json", "joint_attention_dim"),
        )
        _agree("the T5 width", t5, "transformer.joint_attention_dim", width)


def _field(folder: Path, name: str, field: str) -> int:
    value = _json(folder / name).get(field)
    if not isinstance(value, int):
        raise ValueError(f"{folder / name} has no number {field}; copy the whole teacher folder")
    return value


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}); copy the whole teacher folder") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is missing or damaged (no JSON object); copy the whole teacher folder")
    return content


def _agree(name: str, value: int, other: str, other_value: int) -> None:
    if value != other_value:
        raise ValueError(
            f"the teacher's components do not fit: {name} is {value} but {other} is {other_value}; "
            "take all components from the same model"
        )
