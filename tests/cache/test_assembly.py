import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from torch import nn

from onex_distill.cache.assembly import build_student
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.model_folder import ModelFolder, save_model


@pytest.fixture
def export(tiny_teacher, tmp_path):
    """``export(dtype, scheduler)`` is the student of a teacher that is stored in a dtype."""
    save_model(tiny_teacher.transformer, tmp_path / "student")
    save_model(Compensation(16, (((1, 3),),), "residual_mlp"), tmp_path / "compensation")

    def make(dtype: torch.dtype, scheduler: FlowMatchEulerDiscreteScheduler) -> FractionalStableDiffusion3Pipeline:
        tiny_teacher.scheduler = scheduler
        save_model(tiny_teacher.to(dtype), tmp_path / "teacher")
        return build_student(
            ModelFolder(path=tmp_path / "student", class_name="diffusers.SD3Transformer2DModel"),
            ModelFolder(path=tmp_path / "compensation", class_name="onex_distill.Compensation"),
            TeacherFolder(path=tmp_path / "teacher"),
            num_inference_steps=2,
            max_sequence_length=6,
        )

    return make


def dtypes(pipeline: StableDiffusion3Pipeline) -> set[torch.dtype]:
    """Of all weights, but for those that transformers keeps in float32 when T5 is in half precision."""
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    return {p.dtype for part in parts for name, p in part.named_parameters() if ".wo." not in name}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_student_has_one_dtype_in_memory_on_disk_and_when_loaded(export, tmp_path, dtype):
    student = export(dtype, FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert dtypes(student) == {dtype}
    save_model(student, tmp_path / "exported")
    for asked, given in ((None, torch.float32), (dtype, dtype), (torch.bfloat16, torch.bfloat16)):
        loaded = FractionalStableDiffusion3Pipeline.from_pretrained(tmp_path / "exported", dtype=asked)
        loaded.set_progress_bar_config(disable=True)
        assert dtypes(loaded) == {given}
        assert loaded("the red solid circle").images[0].size == (32, 32)


def test_the_schedule_of_training_is_exported_whatever_else_the_teachers_could_do(export):
    student = export(torch.float32, FlowMatchEulerDiscreteScheduler(shift=5.0, stochastic_sampling=True))
    assert student.config.sigmas == pytest.approx([1.0, 5 / 6])
    student.set_progress_bar_config(disable=True)
    student("the red solid circle", output_type="latent")
    assert student.scheduler.sigmas.tolist() == pytest.approx([1.0, 5 / 6, 0.0])
    assert not student.scheduler.config.stochastic_sampling
