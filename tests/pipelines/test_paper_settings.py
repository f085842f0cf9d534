"""conf/sd3_medium and conf/sd35_large on small random checkpoints in the format of the published ones."""

import json

import pytest
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from onex_distill.cache.plan import effective_nfe, reuse_after_first
from onex_distill.engine.randomness import seeded
from onex_distill.pretraining import architecture as tiny
from support import PROJECT, newest

CAPTIONS = [
    f"a photo of number {word} on a table"
    for word in ["one", "two", "three", "four", "five", "six", "seven", "eight"] * 4
]


def random_checkpoint(folder, num_layers, qk_norm, dual_attention_layers):
    """As many blocks as the published model, everything else small."""
    params = tiny.ArchitectureParams(
        latent_size=8,
        latent_channels=4,
        autoencoder_channels=(8, 8, 8),
        num_layers=num_layers,
        attention_head_dim=8,
        num_attention_heads=2,
        patch_size=2,
        qk_norm=qk_norm,
        dual_attention_layers=dual_attention_layers,
        clip_dim=8,
        t5_dim=16,
        text_layers=1,
        max_tokens=77,
        shift=3.0,
    )
    tokenizers = tiny.build_tokenizers(sorted({word for text in CAPTIONS for word in text.split()}), 77)
    with seeded(0):
        clip, clip_2, t5 = tiny.build_text_encoders(params, tokenizers[0], tokenizers[2])
        pipeline = StableDiffusion3Pipeline(
            transformer=tiny.build_transformer(params),
            vae=tiny.build_autoencoder(params),
            scheduler=tiny.build_scheduler(params),
            text_encoder=clip,
            text_encoder_2=clip_2,
            text_encoder_3=t5,
            tokenizer=tokenizers[0],
            tokenizer_2=tokenizers[1],
            tokenizer_3=tokenizers[2],
        )
    pipeline.vae.register_to_config(shift_factor=0.0609, scaling_factor=1.5305)
    pipeline.save_pretrained(folder / "teacher", safe_serialization=True)


BAND = {"num_layers": 24, "candidates": [[[2, 10]]], "nfe": [1.6667]}


@pytest.mark.parametrize(
    ("env", "num_layers", "qk_norm", "dual", "band"),
    [
        ("sd3_medium", 24, None, (), BAND),
        ("sd35_large", 38, "rms_norm", (), {"num_layers": 38, "candidates": [[[2, 12]]], "nfe": [1.7368]}),
        ("sd3_medium", 24, "rms_norm", tuple(range(13)), BAND),
    ],
)
def test_precompute_and_stage_one(run_pipeline, tmp_path, env, num_layers, qk_norm, dual, band):
    raw, data = tmp_path / "raw", tmp_path / "data"
    random_checkpoint(raw, num_layers, qk_norm, dual)
    import pandas as pd

    texts = [f"{text} {i}" for i, text in enumerate(CAPTIONS)]
    pd.DataFrame({"text": texts}).to_parquet(raw / "captions.parquet")
    params = {
        "raw": str(raw),
        "data": str(data),
        "student": {"stage_one": {"batch_size": 2, "loop": {"steps": 1, "checkpoint_every": 1, "log_every": 1}}},
        "text": {"max_sequence_length": 16},
        "validation_set": {"captions": 2, "images_per_caption": 8},
        "teacher_sampling": {"num_inference_steps": 2},
        "compute": {"processes": 1, "sharding": "none", "device": "cpu"},
    }
    (raw / "backbone.safetensors").touch()  # only asked for before stage two
    params["fractional_167"] = {"cotraining": {"backbone": {"weights": str(raw / "backbone.safetensors")}}}
    nodes = ["student.match_distribution", "fractional_167.check_band"]
    run_pipeline("distill", params, env=env, to_nodes=nodes)
    student = SD3Transformer2DModel.from_pretrained(newest(data, "06_models/student_stage_one"))
    assert len(student.transformer_blocks) == num_layers
    assert json.loads(newest(data, "05_model_input/fractional_167_band.json").read_text()) == band


@pytest.mark.parametrize(("env", "num_layers"), [("base", 12), ("sd3_medium", 24), ("sd35_large", 38)])
def test_fractional_methods_are_named_by_what_they_cost(env, num_layers):
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env=env) as session:
        tree = session.load_context().params
    for namespace in ("fractional_167", "fractional_175"):
        (bands,) = tree[namespace]["cotraining"].candidates
        nfe = effective_nfe(reuse_after_first(bands, 2), num_layers)
        assert tree["methods"][namespace].name == f"fractional_{nfe:.2f}"
