"""What the configurations of real models take from ShapesWorld's: nothing that is not listed here, with the reason."""

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import PROJECT

MODELS = ["sd3_medium", "sd35_large"]
ALLOWED = {
    "seeds belong to no model": ["*.seed", "*.seeds", "evaluation.null_seed"],
    "a group that is like another follows what the model says of that one": ["*.like"],
    "machines are the user's": [f"compute.{name}" for name in ("cpu_offload", "device", "machines", "re*", "timeout")],
    "speed is turned on by who has measured it": ["compute.compile", "compute.attention"],
    "inputs are the user's": [
        *(f"score.{name}" for name in ("captions", "images", "images_per_caption", "pipelines")),
        *("score.reference", "score.skip_unreadable", "calibration.published"),
    ],
    "steps of a method, as published": [
        "*.num_inference_steps",
        "methods.*.steps",
        "fronts.*.steps",
    ],
    "students are not guided": [
        *(f"methods.{name}.guidance_scale" for name in ("*_2", "fractional_*", "sfd_4")),
        "fronts.*.guidance_scale",
        "methods.*.alpha",
        "fronts.*.alpha",
    ],
    "what a row is called and may cost": ["methods.*.n*", "fronts.*.n*"],
    "what a baseline is": ["dmd*.stage_one.*", "tdm.stage_one.sigma_range", "unguided.stage_one.guidance.alpha"],
    "the method as published": [
        *(f"reference.stage_one.{name}" for name in ("fake_updates", "matched", "parametrization", "sigma_range")),
        *(f"reference.stage_one.{name}" for name in ("latent_gan", "regression", "select", "micro_batch_size")),
        "reference.stage_one.lora.*",  # of the shared backbone
        "reference.stage_*.student.kind",
        "reference.stage_*.student.schedule",
        "reference.stage_two.student.eps",
        *(f"reference.stage_two.{name}_weight" for name in ("feature", "output", "perceptual")),
        "reference.stage_two.penalties.*",
        "fractional_167.cotraining.fitting_batch*",  # nothing is fitted
    ],
    "a group that is null in conf/sd3": ["student.stage_one.regression.*"],
    "bookkeeping": ["*.max_nonfinite_steps"],
    "how many are measured and shown": [
        *(f"band_search.{name}" for name in ("max_bands", "measured", "nfe_flops", "random")),
        *(f"evaluation_set.{name}" for name in ("captions", "images_per_caption")),
        *(
            "ablation.training.select",
            "ablation.training.watch.every",
            "ablation.variations",
            "evaluation.grid_captions",
        ),
        *("generation.images_per_caption", "generation.nfe", "generation.size", "generation.teacher"),
        *("latency.rounds", "reuse.images", "confidence.*", "report.*"),
    ],
    "captions are encoded alike": ["text.device", "text.encoding"],
}
PATTERNS = [pattern for patterns in ALLOWED.values() for pattern in patterns]


def leaves(group: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(group, dict):
        for name, value in group.items():
            yield from leaves(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix


def named(folder: str, skipped: Path | None = None) -> set[str]:
    """The dotted names of all parameters that the files of one environment give themselves."""
    files = sorted((PROJECT / "conf" / folder).glob("parameters*.yml"))
    return {name for path in files if path != skipped for name in leaves(yaml.safe_load(path.read_text()))}


def inherited(model: str) -> set[str]:
    """What no file of a model says; the pipeline that makes ShapesWorld's own teacher is not for real models."""
    return named("base", PROJECT / "conf/base/parameters_teacher.yml") - named("sd3") - named(model)


@pytest.mark.parametrize("model", MODELS)
def test_a_real_model_inherits_nothing_unawares(model):
    unexpected = {name for name in inherited(model) if not any(fnmatch(name, pattern) for pattern in PATTERNS)}
    assert not unexpected, "say these in conf/sd3, or why they may be ShapesWorld's"


@pytest.mark.parametrize("word", ["batch_size", "lr", "clip_norm", "betas", "warmup_steps", "ema_decay", "scale"])
@pytest.mark.parametrize("model", MODELS)
def test_sizes_and_rates_are_a_models_own(model, word):
    found = {name for name in inherited(model) if name.rpartition(".")[2] == word}
    assert found <= {"fractional_167.cotraining.fitting_batch_size"}


def test_nothing_is_allowed_in_vain():
    names = set.union(*(inherited(model) for model in MODELS))
    assert [pattern for pattern in PATTERNS if not any(fnmatch(name, pattern) for name in names)] == []
