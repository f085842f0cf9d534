"""Teachers stored in half precision, from distillation and export to images."""

import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image
from safetensors import safe_open

from onex_distill import load_student
from support import PROJECT, newest


def kinds_of(pipeline: StableDiffusion3Pipeline) -> dict[str, set[torch.dtype]]:
    """The types of the weights of every component that has some."""
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {name: {p.dtype for p in part.parameters() if p.is_floating_point()} for name, part in parts.items()}


def contrast(path: str) -> float:
    with Image.open(path) as image:
        return float(np.asarray(image).std())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_half_precision_teacher_gives_a_student_that_can_be_called(run_pipeline, tmp_path, dtype):
    raw, data = tmp_path / "raw", tmp_path / "data"
    shutil.copytree(PROJECT / "data/01_raw", raw, ignore=shutil.ignore_patterns("teacher"))
    whole = StableDiffusion3Pipeline.from_pretrained(PROJECT / "data/01_raw/teacher", torch_dtype=dtype)
    whole.save_pretrained(raw / "teacher")
    params = {"raw": str(raw), "data": str(data)}
    run_pipeline("distill", params, to_nodes=["export_student"])
    stored = newest(data, "06_models/student_pipeline") / "transformer/diffusion_pytorch_model.safetensors"
    with safe_open(stored, framework="pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {dtype}  # noqa: SIM118 -- no mapping
    for student, expected in ((load_student(data), torch.float32), (load_student(data, torch_dtype=dtype), dtype)):
        assert {kind for kinds in kinds_of(student).values() for kind in kinds} <= {expected, torch.float32}
        assert kinds_of(student)["transformer"] == kinds_of(student)["compensation"] == {expected}
        image = np.asarray(student("a striped red circle", generator=torch.Generator().manual_seed(0)).images[0])
        assert image.shape == (32, 32, 3)
        assert image.std() > 10
    run_pipeline("generate", params)
    images = sorted((data / "07_model_output/generated").rglob("*.png"))
    assert len(images) > 4
    assert min(map(contrast, images)) > 5
