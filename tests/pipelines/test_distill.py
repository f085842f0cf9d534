"""The main job on conf/test: artefacts, reruns, determinism, resume."""

import math
import shutil

import pandas as pd
import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import load_file

from onex_distill import FractionalStableDiffusion3Pipeline
from support import newest

METHODS = ["teacher_2x2", "teacher_null", "teacher_alpha", "teacher_2", "stage_one_2", "stage_two_2", "fractional_1.67"]
MODELS = ["student_stage_one", "reference_stage_one", "student_stage_two", "fractional_167_student"]
MODELS += ["student_stage_one_best", "reference_stage_one_best"]


def weights(data, name):
    return load_file(newest(data, f"06_models/{name}") / "diffusion_pytorch_model.safetensors")


def metrics(data):
    return pd.read_csv(newest(data, "08_reporting/metrics.csv"))


def test_metrics_table_has_a_row_per_method_and_honest_costs(distilled):
    table = metrics(distilled).set_index("method")
    assert list(table.index) == METHODS
    assert table.loc["fractional_1.67", "nfe"] == pytest.approx(2 - 4 / 12)
    assert table.loc["fractional_1.67", "nfe_flops"] > table.loc["fractional_1.67", "nfe"]
    assert table.loc["teacher_2x2", "nfe_flops"] == pytest.approx(4, rel=1e-3)
    one = table["gflops_per_image"] / table["nfe_flops"]
    assert one.tolist() == pytest.approx([one["teacher_2x2"]] * len(METHODS))  # the FLOPs of one evaluation
    assert math.isnan(table.loc["teacher_2x2", "fid"])
    measured = ["alignment", "diversity", "precision", "recall", "seconds_per_image"]
    assert table[measured].notna().all().all()


def test_every_stage_trains_its_weights(distilled):
    teacher = SD3Transformer2DModel.from_pretrained("data/01_raw/teacher/transformer").state_dict()
    for name in MODELS:
        trained = weights(distilled, name)
        assert trained.keys() == teacher.keys()
        assert any(not torch.equal(trained[key], teacher[key]) for key in teacher), name


def test_finished_runs_leave_no_checkpoints(distilled):
    assert {path.name for path in (distilled / "06_models/runs").rglob("*") if path.is_file()} == {"!mine.txt"}


def test_a_student_trained_again_with_the_same_seed_is_identical(distilled, run_pipeline, tmp_path):
    run_pipeline("distill", {"data": str(tmp_path)}, to_nodes=["fractional_167.cotrain_cache"])
    for name in MODELS:
        first, second = weights(distilled, name), weights(tmp_path, name)
        assert all(torch.equal(first[key], second[key]) for key in first), name


@pytest.mark.slow
def test_rerun_with_the_same_seed_is_identical(distilled, run_pipeline, tmp_path):
    run_pipeline("distill", {"data": str(tmp_path)})
    for name in MODELS:
        first, second = weights(distilled, name), weights(tmp_path, name)
        assert all(torch.equal(first[key], second[key]) for key in first), name
    drop = ["seconds_per_image"]
    pd.testing.assert_frame_equal(metrics(distilled).drop(columns=drop), metrics(tmp_path).drop(columns=drop))


def test_a_single_metric_node_reruns_from_disk(distilled, run_pipeline):
    before = pd.read_parquet(newest(distilled, "08_reporting/measurements/fid.parquet"))
    run_pipeline("__default__", {"data": str(distilled)}, node_names=["compute_fid"])
    folder = distilled / "08_reporting/measurements/fid.parquet"
    assert len(list(folder.glob("*/fid.parquet"))) == 2
    pd.testing.assert_frame_equal(before, pd.read_parquet(newest(distilled, "08_reporting/measurements/fid.parquet")))


def test_exported_student_samples_and_opens_as_a_plain_pipeline(distilled):
    folder = newest(distilled, "06_models/student_pipeline")
    student = FractionalStableDiffusion3Pipeline.from_pretrained(folder)
    image = student("a solid red circle", generator=torch.Generator().manual_seed(0)).images[0]
    assert image.size == (32, 32)
    plain = StableDiffusion3Pipeline.from_pretrained(folder)
    assert type(plain) is StableDiffusion3Pipeline


@pytest.mark.slow
def test_baselines_add_their_rows(distilled, run_pipeline, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(distilled, data)
    run_pipeline("baselines", {"data": str(data)})
    table = metrics(data).set_index("method")
    assert list(table.index) == [*METHODS, "dmd_2", "dmd2_2", "tdm_2", "unguided_2", "sfd_4", "fractional_1.75"]
    assert table.loc["fractional_1.75", "nfe"] == pytest.approx(1.75)
    assert table.loc["sfd_4", "nfe"] == 4


def test_generate_writes_a_folder_per_run(distilled, run_pipeline):
    for _ in range(2):
        run_pipeline("generate", {"data": str(distilled)})
    folders = sorted((distilled / "07_model_output/generated").glob("*/generated"))
    assert len(folders) == 2
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]
    assert len([name for name in contents[0] if name.endswith(".png")]) == 12
    assert len(list((distilled / "08_reporting/contact_sheet.png").glob("*/contact_sheet.png"))) == 2


def test_the_exported_student_names_no_path_of_this_machine(distilled):
    folder = newest(distilled, "06_models/student_pipeline")
    texts = [path.read_text() for path in folder.rglob("*.json")]
    assert texts
    assert not any(str(distilled) in text for text in texts)


def test_a_run_at_test_sizes_ends_with_a_warning(distilled):
    first = min(distilled.glob("runs/*/log.txt"))  # others add their runs to the folder
    assert "the numbers mean nothing" in first.read_text()
