"""The configurations of the real models on small random checkpoints in the format of the published ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
from diffusers import SD3Transformer2DModel
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from safetensors.torch import save_file

from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import effective_nfe, reuse_after_first
from published import write_checkpoint
from published_models import MODELS
from support import PROJECT, newest
from true_size import CONFS

CAPTIONS = [
    f"a photo of number {word} on a table"
    for word in ["one", "two", "three", "four", "five", "six", "seven", "eight"] * 4
]


BAND = (24, (2, 10))  # blocks, and those of them that are skipped
LARGE_BAND = (38, (2, 12))
ALONE = {"processes": 1, "sharding": "none", "device": "cpu"}
TWO_RANKS = {"processes": 2, "sharding": "fsdp2", "device": "cpu"}
WHOLE = ("distill", "baselines", "pareto", "reuse", "generate", "ablation")
VARIATION = {"alpha": 0.96, "importance": "c", "steps": 2, "alpha_axis": "sigma", "importance_axis": "u"}


def tiny_settings(env: str, folder: Path, compute: dict[str, Any]) -> dict[str, Any]:
    """A tiny checkpoint of an environment's model, captions and a backbone; sizes and step counts, and nothing else."""
    raw = folder / "raw"
    words = sorted({word for text in CAPTIONS for word in text.split()})
    write_checkpoint(CONFS[env], raw / "teacher", words)
    texts = [f"{text} {i}" for i, text in enumerate(CAPTIONS)]
    pd.DataFrame({"text": texts}).to_parquet(raw / "captions.parquet")
    (raw / "generation_captions.txt").write_text("\n".join(CAPTIONS[:2]) + "\n")
    network = timm.create_model("resnet10t")
    save_file(network.state_dict(), raw / "backbone.safetensors")
    micro = {} if env in MODELS else {"micro_batch_size": 1}
    loop = {"steps": 1, "checkpoint_every": 1, "log_every": 1}
    one = {"batch_size": 2, "loop": loop, "watch": {"prompts": 1, "images": 2}, **micro}
    backbone = {"name": "resnet10t", "weights": str(raw / "backbone.safetensors"), "levels": [1, 2, 3]}
    short = {"steps": 3, "checkpoint_every": 3, "log_every": 1}  # two of the discriminator, one of the generator
    two = {"batch_size": 2, "discriminator_warmup": 0, "backbone": backbone, "discriminator_hidden": 4, "loop": short}
    return {
        "raw": str(raw),
        "data": str(folder / "data"),
        "reference": {"stage_one": one, "stage_two": two},
        "student": {"stage_one": one, "stage_two": two},
        "fractional_167": {"cotraining": two | {"compensation_warmup": 0}},
        "dial": {"cotraining": {"loop": short}},
        "dmd": {"stage_one": {"loop": loop}},
        "unguided": {"stage_one": {"loop": loop}},
        "dmd2": {"stage_one": {"loop": loop, "fake_updates": 1}},
        "text": {"max_sequence_length": 16},
        "references": {"count": 2},
        "validation_set": {"captions": 2, "images_per_caption": 32},
        "evaluation_set": {"captions": 4, "images_per_caption": 2},
        "teacher_sampling": {"num_inference_steps": 2},
        "methods": {"teacher_alpha": {"steps": 2}, "teacher_null": {"steps": 2}},
        "ablation": {"training": one, "seeds": [1], "variations": [VARIATION, VARIATION | {"alpha": 1.0}]},
        "latency": {"rounds": 1, "batch_size": 1},
        "band_search": {"images": 4, "measured": 1, "random": 1},
        "reuse": {"images": 4, "batch_size": 4},
        "generation": {"images_per_caption": 1},
        "compute": compute,
    }


def trained(run_pipeline: Callable[..., Any], env: str, folder: Path, compute: dict[str, Any]) -> Path:
    """The data folder of a run up to the co-trained student."""
    params = tiny_settings(env, folder, compute)
    run_pipeline("distill", params, env=env, to_nodes=["fractional_167.cotrain_cache"])
    return folder / "data"


@pytest.mark.parametrize(
    ("env", "band"),
    [
        ("sd3_medium", BAND),
        pytest.param("sd35_medium", BAND, marks=pytest.mark.slow),
        pytest.param("sd35_large", LARGE_BAND, marks=pytest.mark.slow),
        pytest.param("sd3_medium_24gb", BAND, marks=pytest.mark.slow),
        pytest.param("sd35_large_80gb", LARGE_BAND, marks=pytest.mark.slow),
    ],
)
def test_to_the_cotrained_student(run_pipeline, tmp_path, env, band):
    data = trained(run_pipeline, env, tmp_path, ALONE)
    student = SD3Transformer2DModel.from_pretrained(newest(data, "06_models/fractional_167_student"))
    num_layers, skipped = band
    assert len(student.transformer_blocks) == num_layers
    assert Compensation.load_candidates(newest(data, "06_models/fractional_167_compensation")) == ((skipped,),)


@pytest.mark.slow
def test_two_sharded_ranks_in_bf16_come_to_the_cotrained_student(run_pipeline, tmp_path):
    data = trained(run_pipeline, "sd3_medium", tmp_path, TWO_RANKS)
    losses = pd.read_parquet(newest(data, "08_reporting/fractional_167_cotraining_losses.parquet"))
    assert np.isfinite(losses["generator_loss"].dropna()).all()
    assert len(losses) == 3


@pytest.mark.slow
@pytest.mark.parametrize("env", MODELS)
def test_the_whole_graph(run_pipeline, tmp_path, env):
    params, data = tiny_settings(env, tmp_path, ALONE), tmp_path / "data"
    for pipeline in WHOLE:
        run_pipeline(pipeline, params, env=env)
    table = pd.read_parquet(newest(data, "08_reporting/metrics.parquet"))
    assert len(table) == 13  # the teacher, and a row per entry of ``methods``
    assert np.isfinite(table["saturation"]).all()  # the scorers' own files are not there, pixels are
    assert not pd.read_parquet(newest(data, "08_reporting/pareto.parquet")).empty
    assert len(pd.read_csv(newest(data, "08_reporting/ablation_targets.csv"))) == 2


@pytest.mark.parametrize(("env", "num_layers"), [("base", 12), ("sd3_medium", 24), ("sd35_large", 38)])
def test_fractional_methods_are_named_by_what_their_bands_cost(env, num_layers):
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env=env) as session:
        tree = session.load_context().params
    for namespace in ("fractional_167", "fractional_175"):
        (bands,) = tree[namespace]["cotraining"].candidates
        nfe = effective_nfe(reuse_after_first(bands, 2), num_layers)
        assert tree["methods"][namespace].named(bands, num_layers).name == f"fractional_{nfe:.2f}"
        other = tree["methods"][namespace].named(((1, 1 + num_layers // 2),), num_layers)
        assert other.name == "fractional_1.50"
    assert tree["report"].student in tree["methods"]
