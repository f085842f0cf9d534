"""What every method of an evaluation shares, as paths that nodes and jobs hand around."""

from pydantic import PositiveInt

from onex_distill.evaluation.scores import Scoring
from onex_distill.models.conditions import Conditions
from onex_distill.parameters import Params
from onex_distill.storage.model_folder import ModelFolder


class SamplingInputs(Conditions):
    """The teacher, whose schedule and autoencoder all methods use, the captions' embeddings, and images per batch.

    ``null_seed`` is the first noise seed of the teacher's null row.
    """

    batch_size: PositiveInt
    null_seed: int


class CompensationSets(Params):
    """Names of fronts, each with its compensation."""

    folders: tuple[tuple[str, ModelFolder], ...]


class StudyInputs(Params):
    """What a study samples with, and what it scores the images by."""

    sampling: SamplingInputs
    scoring: Scoring
