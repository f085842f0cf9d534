"""Parameters of the precompute pipeline."""

from pydantic import NonNegativeFloat, PositiveInt

from onex_distill.parameters import Params


class TextParams(Params):
    """T5 tokens a caption, and captions a batch."""

    max_sequence_length: PositiveInt
    batch_size: PositiveInt


class EvaluationSetParams(Params):
    """Which held-out captions every method is sampled on, how often, and from which noise."""

    seed: int
    captions: PositiveInt
    images_per_caption: PositiveInt


class TeacherSamplingParams(Params):
    """How the teacher samples."""

    num_inference_steps: PositiveInt
    guidance_scale: NonNegativeFloat
    batch_size: PositiveInt
