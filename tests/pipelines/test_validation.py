"""Stage one's validation on conf/test: its captions, its column, and the student that goes on."""

import pandas as pd
import pytest

from onex_distill.storage.tensor_table import TensorTable
from support import newest

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def data(run_pipeline, tmp_path_factory):
    """The data folder after stage one, with the best student chosen."""
    data = tmp_path_factory.mktemp("validated")
    select = {"student": {"stage_one": {"select": "best"}}}
    run_pipeline("distill", {"data": str(data), **select}, to_nodes=["student.match_distribution", "plan_evaluation"])
    return data


def test_the_validation_reads_captions_that_neither_training_nor_evaluation_reads(data):
    prompts = pd.read_parquet(newest(data, "02_intermediate/prompts.parquet"))
    plan = pd.read_parquet(newest(data, "03_primary/validation_plan.parquet"))
    evaluation = pd.read_parquet(newest(data, "03_primary/evaluation_plan.parquet"))
    assert set(prompts["split"].iloc[plan["prompt_row"]]) == {"reference"}
    assert set(prompts["split"].iloc[evaluation["prompt_row"]]) == {"heldout"}
    assert (plan["prompt_row"].nunique(), len(plan)) == (4, 32)
    table = TensorTable(newest(data, "05_model_input/validation_latents"))
    pd.testing.assert_frame_equal(table.index, plan)
    assert table.column("latent").shape == (32, 8, 8, 8)


def test_the_selected_student_goes_on(data):
    names = ("student_stage_one", "student_stage_one_best")
    chosen, best = (newest(data, f"06_models/{name}") / WEIGHTS for name in names)
    assert chosen.read_bytes() == best.read_bytes()


def test_the_losses_hold_the_distance_of_every_watched_step(data):
    losses = pd.read_parquet(newest(data, "08_reporting/student_stage_one_losses.parquet"))
    distances = losses.set_index("step")["validation_distance"].dropna()
    assert distances.index.tolist() == [1, 3]
    assert (distances > 0).all()
