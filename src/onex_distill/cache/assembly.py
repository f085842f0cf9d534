"""The exported student put together: trained weights, the teacher's other components, and the schedule of training."""

from diffusers import FlowMatchEulerDiscreteScheduler

from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.model_folder import ModelFolder, stored_dtype


def build_student(
    student: ModelFolder,
    compensation: ModelFolder,
    teacher: TeacherFolder,
    num_inference_steps: int,
    max_sequence_length: int,
) -> FractionalStableDiffusion3Pipeline:
    """A pipeline in the dtype that the teacher's transformer is stored in.

    Its scheduler takes the steps at the levels that the student was trained at, whatever else the teacher's could do.

    Args:
        student: The trained transformer.
        compensation: What stands in for skipped bands.
        teacher: Text encoders, tokenizers and autoencoder come from here.
        num_inference_steps: The student's steps.
        max_sequence_length: Tokens of the T5 part of its embeddings.

    Returns:
        The pipeline with all of its components.
    """
    dtype = stored_dtype(teacher.transformer.path)
    components = teacher.load_text_pipeline(dtype=dtype).components
    sigmas = step_sigmas(num_inference_steps, teacher.shift)[:-1].tolist()
    return FractionalStableDiffusion3Pipeline(
        **{
            **components,
            "transformer": student.load(dtype=dtype),
            "vae": teacher.autoencoder.load(dtype=dtype),
            "scheduler": FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=teacher.shift),
        },
        compensation=compensation.load(dtype=dtype),
        num_inference_steps=num_inference_steps,
        max_sequence_length=max_sequence_length,
        sigmas=sigmas,
    )
