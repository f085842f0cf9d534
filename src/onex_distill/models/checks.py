"""Checks of Stable Diffusion 3 folders that are made before anything expensive."""

import json
from pathlib import Path

from diffusers import StableDiffusion3Pipeline

from onex_distill.models.compensation import Compensation

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
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{folder} is no diffusers pipeline: it has no model_index.json; point it to a teacher folder")
    declared = json.loads(index.read_text())
    if "StableDiffusion3" not in str(declared.get("_class_name")):
        raise ValueError(f"{folder} holds a {declared.get('_class_name')}, not a StableDiffusion3Pipeline")
    expected = list(REQUIRED) + [n for n in ("text_encoder_3", "tokenizer_3") if declared.get(n, [None])[0]]
    missing = [name for name in expected if not (folder / name).is_dir()]
    if missing:
        raise ValueError(f"{folder} lacks the component {missing[0]!r}; copy the whole teacher folder")


def check_compensation_folder(folder: Path) -> None:
    """Raise ValueError with one line when an exported student declares a compensation that cannot be loaded whole."""
    index = folder / "model_index.json"
    if not index.is_file() or not json.loads(index.read_text()).get("compensation", [None])[0]:
        return
    part = folder / "compensation"
    if not part.is_dir():
        raise ValueError(
            f"{folder} lacks its compensation; copy the whole exported folder, or export the student again"
        )
    try:
        _, info = Compensation.from_pretrained(
            part, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # whatever a damaged file makes the libraries raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{part} is damaged ({reason}); copy it again, or export the student again") from error
    if info["missing_keys"]:
        raise ValueError(
            f"{part} is damaged (it lacks {info['missing_keys'][0]}); copy it again, or export the student again"
        )


def check_teacher(pipeline: StableDiffusion3Pipeline) -> None:
    """Raise ValueError when the components' widths do not fit each other."""
    config = pipeline.transformer.config
    clip = (pipeline.text_encoder.config.projection_dim, pipeline.text_encoder_2.config.projection_dim)
    _agree("the pooled text width", sum(clip), "transformer.pooled_projection_dim", config.pooled_projection_dim)
    _agree("vae.latent_channels", pipeline.vae.config.latent_channels, "transformer.in_channels", config.in_channels)
    if pipeline.text_encoder_3 is not None:
        t5 = pipeline.text_encoder_3.config.d_model
        _agree("the T5 width", t5, "transformer.joint_attention_dim", config.joint_attention_dim)


def _agree(name: str, value: int, other: str, other_value: int) -> None:
    if value != other_value:
        raise ValueError(
            f"the teacher's components do not fit: {name} is {value} but {other} is {other_value}; "
            "take all components from the same model"
        )
