"""What every method of an evaluation shares, as paths that nodes and jobs hand around."""

from pydantic import PositiveInt

from onex_distill.models.teacher import TeacherFolder
from onex_distill.parameters import Params
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TableFolder


class SamplingInputs(Params):
    """The teacher, whose schedule and autoencoder all methods use, the captions' embeddings, and images per batch."""

    teacher: TeacherFolder
    embeddings: TableFolder
    empty: TableFolder
    batch_size: PositiveInt


class CompensationSets(Params):
    """Names of fronts, each with its compensation."""

    folders: tuple[tuple[str, ModelFolder], ...]


class StudyInputs(Params):
    """What a study samples with, and what it scores the images by: the evaluator and the teacher's images."""

    sampling: SamplingInputs
    evaluator: ModelFolder
    reference: TableFolder


class RefinementInputs(Params):
    """What adversarial training reads beside the student: captions, reference images and who made them."""

    teacher: TeacherFolder
    recogniser: ModelFolder
    reference_generator: ModelFolder
    reference_steps: PositiveInt
    embeddings: TableFolder
    references: TableFolder
