"""Parameters of the precompute pipeline."""

from pydantic import NonNegativeFloat, PositiveInt

from onex_distill.parameters import Params


class TextParams(Params):
    """T5 tokens a caption, and captions a batch."""

    max_sequence_length: PositiveInt
    batch_size: PositiveInt


class CaptionSetParams(Params):
    """How many captions of a split are sampled, how often each, and from which noise."""

    seed: int
    captions: PositiveInt
    images_per_caption: PositiveInt


class TeacherSamplingParams(Params):
    """How the teacher samples."""

    num_inference_steps: PositiveInt
    guidance_scale: NonNegativeFloat
    batch_size: PositiveInt
