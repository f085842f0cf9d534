"""Folders and pipelines scored side by side, and the calibration's refusal."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from onex_distill.cache.compensation import Compensation
from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
from onex_distill.metrics.cost import flops_of
from support import newest


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of 32 x 32 images with captions of ShapesWorld; the second has too few for a Frechet distance."""
    home, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, count in (("many", 80), ("few", 8)):
        (home / name).mkdir()
        rows = []
        for number in range(count):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(home / name / f"{number}.png")
            rows.append({"file_name": f"{number}.png", "text": f"a solid {('red', 'blue')[number % 2]} circle"})
        (home / name / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return home


def test_folders_and_pipelines_are_rows_of_one_table(folders, run_pipeline, stored_teacher, tmp_path):
    (tmp_path / "captions.txt").write_text("a solid red circle\na hollow blue square\n")
    pipeline = {"name": "tiny", "source": str(stored_teacher), "steps": 1, "guidance_scale": 1.0, "scheduler": None}
    score = {
        "images": [str(folders / "many"), str(folders / "few")],
        "pipelines": [pipeline],
        "captions": str(tmp_path / "captions.txt"),
        "images_per_caption": 2,
        "reference": "many",
    }
    run_pipeline("score", {"data": str(tmp_path / "data"), "score": score})
    table = pd.read_csv(newest(tmp_path / "data", "08_reporting/score.csv")).set_index("method")
    assert table["images"].to_dict() == {"many": 80, "few": 8, "tiny": 4}
    assert table["seconds_per_image"].notna().to_dict() == {"many": False, "few": False, "tiny": True}
    call = StableDiffusion3Pipeline.from_pretrained(stored_teacher)
    settings = {"num_inference_steps": 1, "guidance_scale": 1.0, "generator": torch.Generator().manual_seed(0)}
    counted = flops_of(lambda: call(["a solid red circle"], **settings)) / 1e9
    assert table.loc["tiny", "gflops_per_image"] == pytest.approx(counted, rel=1e-6)
    assert table["alignment"].between(0, 1).all()
    assert (table["alignment_low"] <= table["alignment"]).all()
    assert table["saturation"].notna().all()
    comparisons = pd.read_csv(newest(tmp_path / "data", "08_reporting/score_comparisons.csv"))
    assert comparisons["difference"].isna().all()  # of other captions, or of the reference with itself
    to_reference = (comparisons["metric"] == "fid") & (comparisons["method_a"] == "many")
    assert (comparisons.loc[to_reference, "reason"] == "distances are to these images").all()
    assert comparisons.loc[~to_reference, "reason"].str.startswith("prompt_list differs: ").all()
    assert (to_reference.sum(), len(comparisons) % 3) == (2, 0)  # of three pairs for every metric


def test_a_students_export_is_a_row_beside_its_teacher(run_pipeline, tiny_teacher, stored_teacher, tmp_path):
    compensation = Compensation(16, (((1, 3),),), "sigma_residual_mlp").eval()
    student = FractionalStableDiffusion3Pipeline(
        **tiny_teacher.components, compensation=compensation, num_inference_steps=2, max_sequence_length=6
    )
    student.save_pretrained(tmp_path / "student")
    (tmp_path / "captions.txt").write_text("a solid red circle\na hollow blue square\n")
    rows = [
        {"name": name, "source": str(folder), "steps": steps, "guidance_scale": None, "scheduler": None}
        for name, folder, steps in (("student", tmp_path / "student", None), ("teacher_1", stored_teacher, 1))
    ]
    score = {"pipelines": rows, "captions": str(tmp_path / "captions.txt"), "images_per_caption": 2}
    run_pipeline("score", {"data": str(tmp_path / "data"), "score": score})
    table = pd.read_csv(newest(tmp_path / "data", "08_reporting/score.csv")).set_index("method")
    assert table["images"].to_dict() == {"student": 4, "teacher_1": 4}
    assert table["saturation"].notna().all()
    assert table.loc["student", "saturation"] != table.loc["teacher_1", "saturation"]
    comparisons = pd.read_csv(newest(tmp_path / "data", "08_reporting/score_comparisons.csv")).set_index("metric")
    assert pd.notna(comparisons.loc["saturation", "difference"])  # same captions, same seeds


def test_nothing_to_score_is_one_line(run_pipeline, tmp_path):
    with pytest.raises(ValueError, match=r"nothing to score; name folders with --params=score\.images=FOLDER"):
        run_pipeline("score", {"data": str(tmp_path / "data")})
