"""Nodes of several pipelines."""

from pathlib import Path

from onex_distill.distill.stage_two.inputs import AdversarialInputs
from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.features import ScorersParams, extract_features
from onex_distill.evaluation.inputs import SamplingInputs
from onex_distill.evaluation.params import EvaluationParams
from onex_distill.models.conditions import Conditions
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.shared.params import ReferencesParams
from onex_distill.storage.image_table import ImageTable
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable


def gather_conditions(teacher: TeacherFolder, embeddings: TensorTable, empty: TensorTable) -> Conditions:
    """What every training and sampling stands on, in one place."""
    return Conditions(teacher=teacher, embeddings=embeddings.handle, empty=empty.handle)


def gather_sampling_inputs(conditions: Conditions, params: EvaluationParams) -> SamplingInputs:
    """What all methods share."""
    return SamplingInputs(**dict(conditions), batch_size=params.batch_size, null_seed=params.null_seed)


def gather_adversarial_inputs(
    conditions: Conditions,
    recogniser: ModelFolder,
    generator: ModelFolder,
    references: TensorTable,
    params: ReferencesParams,
) -> AdversarialInputs:
    """What every adversarial training reads, in one place.

    Args:
        conditions: The teacher and the embeddings of its captions.
        recogniser: The recogniser that judges images.
        generator: The network that makes reference latents.
        references: Latents of the reference generator, or images of them.
        params: The settings, validated.

    Returns:
        All of them.
    """
    return AdversarialInputs(
        autoencoder=conditions.teacher.autoencoder,
        shift=conditions.teacher.shift,
        recogniser=recogniser,
        reference_generator=generator,
        reference_steps=params.num_inference_steps,
        embeddings=conditions.embeddings,
        references=references.handle,
    )


def extract(samples: ImageTable, params: ScorersParams, compute: ComputeParams, runs: Path) -> TensorTable:
    """Rows of every network for every image, each decoded once.

    Args:
        samples: The images.
        params: The settings, validated.
        compute: Ranks, precision and sharding.
        runs: The folder of the jobs; a finished job in it is taken as it is.

    Returns:
        A row per image.
    """
    return extract_features(samples.handle, params, compute, runs)
