"""Checks of a Stable Diffusion 3 folder, made from its JSON files and headers before anything expensive."""

from functools import partial
from pathlib import Path
from typing import Any

from onex_distill.storage.model_check import check_config, read_json
from onex_distill.storage.model_folder import ModelFolder

REQUIRED = (
    "transformer",
    "vae",
    "scheduler",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
)
T5 = ("text_encoder_3", "tokenizer_3")
CLASSES = {
    "transformer": ("diffusers.SD3Transformer2DModel",),
    "vae": ("diffusers.AutoencoderKL",),
    "scheduler": ("diffusers.FlowMatchEulerDiscreteScheduler",),
    "text_encoder": ("transformers.CLIPTextModelWithProjection",),
    "text_encoder_2": ("transformers.CLIPTextModelWithProjection",),
    "text_encoder_3": ("transformers.T5EncoderModel",),
    "tokenizer": ("transformers.CLIPTokenizer", "transformers.CLIPTokenizerFast"),
    "tokenizer_2": ("transformers.CLIPTokenizer", "transformers.CLIPTokenizerFast"),
    "tokenizer_3": ("transformers.T5Tokenizer", "transformers.T5TokenizerFast"),
}
NUMBERS = {  # what the nodes of a run read from each config
    "transformer": (
        "sample_size",
        "patch_size",
        "in_channels",
        "num_layers",
        "num_attention_heads",
        "attention_head_dim",
        "joint_attention_dim",
        "pooled_projection_dim",
    ),
    "vae": ("latent_channels", "scaling_factor", "shift_factor"),
    "text_encoder": ("projection_dim", "max_position_embeddings"),
    "text_encoder_2": ("projection_dim", "max_position_embeddings"),
    "text_encoder_3": ("d_model",),
    "scheduler": ("shift", "num_train_timesteps"),
}
FRACTIONS = ("scaling_factor", "shift_factor", "shift")
NOT_HONOURED = (  # settings of diffusers' scheduler under which its sigmas are not the shifted line
    "use_dynamic_shifting",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
    "shift_terminal",
    "stochastic_sampling",
)
TIMESTEPS = 1000
VOCABULARIES = {  # files that hold a tokenizer's whole vocabulary, in any one of these sets
    "tokenizer": (("tokenizer.json",), ("vocab.json", "merges.txt")),
    "tokenizer_2": (("tokenizer.json",), ("vocab.json", "merges.txt")),
    "tokenizer_3": (("tokenizer.json",), ("spiece.model",)),
}
SCHEDULER_FILE = "scheduler/scheduler_config.json"


def check_teacher_folder(folder: Path) -> None:
    """Raise ValueError with one line when the folder is no complete Stable Diffusion 3 pipeline that can be distilled.

    The T5 encoder and its tokenizer may be absent together, as diffusers allows.
    """
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} is no diffusers pipeline: it has no model_index.json; point it to a teacher folder")
    declared = read_json(folder / "model_index.json")
    if "StableDiffusion3" not in str(declared.get("_class_name")):
        raise ValueError(f"{folder} holds a {declared.get('_class_name')}, not a StableDiffusion3Pipeline")
    if "text_encoder_3" in components(folder) and "tokenizer_3" not in components(folder):
        raise ValueError(
            f"{folder / 'model_index.json'} names a T5 encoder without tokenizer_3; add it, or leave out both"
        )
    for name in components(folder):
        if not (folder / name).is_dir():
            raise ValueError(f"{folder} lacks the component {name!r}; copy the whole teacher folder")
        _check_class(folder, name, declared.get(name))
    for name in components(folder):
        if name in ("transformer", "vae", *T5[:1], "text_encoder", "text_encoder_2"):
            check_config(ModelFolder(path=folder / name, class_name=CLASSES[name][0]))
    _check_scheduler(folder)
    _check_widths(folder)
    _check_tokens(folder)


def components(folder: Path) -> list[str]:
    """The names of a teacher's components: T5 and its tokenizer only where model_index.json declares them."""
    declared = read_json(folder / "model_index.json")
    return [*REQUIRED, *(name for name in T5 if _declaration(declared.get(name)))]


def _declaration(entry: Any) -> str:
    """``library.Class`` of an entry of model_index.json; empty for one that is not there."""
    if isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
        return ".".join(entry)
    return ""


def _check_class(folder: Path, name: str, entry: Any) -> None:
    declared = _declaration(entry)
    if declared not in CLASSES[name]:
        wanted = CLASSES[name][0]
        raise ValueError(
            f"{folder / 'model_index.json'} names {declared or 'nothing'} as {name!r}, not {wanted}; the teacher must "
            "be a whole Stable Diffusion 3 or 3.5 model with its own scheduler"
        )


def _check_scheduler(folder: Path) -> None:
    """Raise ValueError unless the schedule is the one that is trained: a line of sigmas with a constant shift."""
    path = folder / SCHEDULER_FILE
    config = read_json(path)
    found = config.get("_class_name")
    if found != "FlowMatchEulerDiscreteScheduler":
        raise ValueError(
            f"{path} is a {found}, not a FlowMatchEulerDiscreteScheduler; students are trained on its sigmas alone"
        )
    for name in NOT_HONOURED:
        if config.get(name):
            raise ValueError(
                f"{path} sets {name} to {config[name]!r}, which training cannot follow; set it to "
                f"{'null' if name == 'shift_terminal' else 'false'} and give a constant shift"
            )
    shift, timesteps = (_field(folder, SCHEDULER_FILE, name) for name in NUMBERS["scheduler"])
    if shift <= 0:
        raise ValueError(f"{path} has the shift {shift}; it must be above 0, as 3.0")
    if timesteps != TIMESTEPS:
        raise ValueError(f"{path} has num_train_timesteps {timesteps}; only {TIMESTEPS} are supported")


def _check_widths(folder: Path) -> None:
    """Raise ValueError when the transformer is no Stable Diffusion 3 one, or the components' widths disagree."""
    transformer = read_json(folder / "transformer/config.json")
    if transformer.get("_class_name") != "SD3Transformer2DModel":
        raise ValueError(
            f"{folder / 'transformer'} holds a {transformer.get('_class_name')}, not an SD3Transformer2DModel; "
            "the teacher must be a Stable Diffusion 3 or 3.5 model"
        )
    numbers = {
        name: {field: _field(folder, f"{name}/config.json", field) for field in fields}
        for name, fields in NUMBERS.items()
        if name in components(folder) and name != "scheduler"
    }
    own, vae = numbers["transformer"], numbers["vae"]
    clip = numbers["text_encoder"]["projection_dim"] + numbers["text_encoder_2"]["projection_dim"]
    agree = partial(_agree, folder)
    agree("the pooled text width", clip, "transformer.pooled_projection_dim", own["pooled_projection_dim"])
    agree("vae.latent_channels", vae["latent_channels"], "transformer.in_channels", own["in_channels"])
    if t5 := numbers.get("text_encoder_3"):
        agree("the T5 width", t5["d_model"], "transformer.joint_attention_dim", own["joint_attention_dim"])


def check_vocabularies(folder: Path) -> None:
    """Raise ValueError for a tokenizer without its vocabulary, for which transformers would make up a tiny one."""
    for name, sets in VOCABULARIES.items():
        if name in components(folder) and not any(
            all((folder / name / file).is_file() for file in one) for one in sets
        ):
            wanted = " nor ".join(" and ".join(one) for one in sets)
            raise ValueError(f"{folder / name} has neither {wanted}; copy the whole folder again")


def _check_tokens(folder: Path) -> None:
    """Raise ValueError for CLIP tokenizers without a maximum length, or with one beyond their encoder's positions."""
    for number in ("", "_2"):
        name = f"tokenizer{number}/tokenizer_config.json"
        length = _field(folder, name, "model_max_length")
        places = _field(folder, f"text_encoder{number}/config.json", "max_position_embeddings")
        if not 0 < length <= places:
            raise ValueError(
                f"{folder / name} has model_max_length {length}, and text_encoder{number} has {places} positions; set "
                f"it to {places}"
            )


def _field(folder: Path, name: str, field: str) -> Any:
    """A number of a config: whole, unless it is a factor or the shift."""
    value = read_json(folder / name).get(field)
    kinds = (int, float) if field in FRACTIONS else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ValueError(f"{folder / name} has no number {field} (but {value!r}); copy the whole teacher folder")
    return value


def _agree(folder: Path, name: str, value: int, other: str, other_value: int) -> None:
    if value != other_value:
        raise ValueError(
            f"the components of the teacher {folder} do not fit: {name} is {value} but {other} is {other_value}; "
            "take all components from the same model"
        )
