"""What every method of an evaluation shares, as paths that nodes and jobs hand around."""

from pydantic import PositiveInt

from onex_distill.models.conditions import Conditions
from onex_distill.parameters import Params
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TableFolder


class SamplingInputs(Conditions):
    """The teacher, whose schedule and autoencoder all methods use, the captions' embeddings, and images per batch."""

    batch_size: PositiveInt


class CompensationSets(Params):
    """Names of fronts, each with its compensation."""

    folders: tuple[tuple[str, ModelFolder], ...]


class StudyInputs(Params):
    """What a study samples with, and what it scores the images by: the evaluator and the teacher's images."""

    sampling: SamplingInputs
    evaluator: ModelFolder
    reference: TableFolder
