"""conf/sd3_medium and conf/sd35_large on small random checkpoints in the format of the published ones."""

import json

import pandas as pd
import pytest
import timm
from diffusers import SD3Transformer2DModel
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from safetensors.torch import save_file

from onex_distill.cache.plan import effective_nfe, reuse_after_first
from published import write_checkpoint
from support import PROJECT, newest

CAPTIONS = [
    f"a photo of number {word} on a table"
    for word in ["one", "two", "three", "four", "five", "six", "seven", "eight"] * 4
]


BAND = {"num_layers": 24, "candidates": [[[2, 10]]], "nfe": [1.6667]}


@pytest.mark.parametrize(
    ("env", "band"),
    [
        ("sd3_medium", BAND),
        ("sd35_medium", BAND),
        ("sd35_large", {"num_layers": 38, "candidates": [[[2, 12]]], "nfe": [1.7368]}),
    ],
)
def test_to_the_cotrained_student(run_pipeline, tmp_path, env, band):
    raw, data = tmp_path / "raw", tmp_path / "data"
    write_checkpoint(env, raw / "teacher", sorted({word for text in CAPTIONS for word in text.split()}))
    texts = [f"{text} {i}" for i, text in enumerate(CAPTIONS)]
    pd.DataFrame({"text": texts}).to_parquet(raw / "captions.parquet")
    network = timm.create_model("resnet10t")
    save_file(network.state_dict(), raw / "backbone.safetensors")
    loop = {"steps": 1, "checkpoint_every": 1, "log_every": 1}
    one = {"batch_size": 2, "loop": loop, "watch": {"prompts": 1, "images": 2}}
    backbone = {"name": "resnet10t", "weights": str(raw / "backbone.safetensors"), "levels": [1, 2, 3]}
    short = {"steps": 3, "checkpoint_every": 3, "log_every": 1}  # two of the discriminator, one of the generator
    two = {"batch_size": 2, "discriminator_warmup": 0, "backbone": backbone, "discriminator_hidden": 4, "loop": short}
    params = {
        "raw": str(raw),
        "data": str(data),
        "reference": {"stage_one": one, "stage_two": two},
        "student": {"stage_one": one, "stage_two": two},
        "fractional_167": {"cotraining": two | {"compensation_warmup": 0}},
        "text": {"max_sequence_length": 16},
        "references": {"count": 2},
        "validation_set": {"captions": 2, "images_per_caption": 32},
        "teacher_sampling": {"num_inference_steps": 2},
        "compute": {"processes": 1, "sharding": "none", "device": "cpu"},
    }
    run_pipeline("distill", params, env=env, to_nodes=["fractional_167.cotrain_cache", "fractional_167.check_band"])
    student = SD3Transformer2DModel.from_pretrained(newest(data, "06_models/fractional_167_student"))
    assert len(student.transformer_blocks) == band["num_layers"]
    assert json.loads(newest(data, "05_model_input/fractional_167_band.json").read_text()) == band


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
