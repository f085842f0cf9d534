"""Parameters of the precompute pipeline."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt

from onex_distill.parameters import Params, Seed

LONGEST_SEQUENCE = 512  # T5 tokens; what StableDiffusion3Pipeline accepts in a call


class TextParams(Params):
    """T5 tokens per caption, and captions per batch."""

    max_sequence_length: Annotated[int, Field(gt=0, le=LONGEST_SEQUENCE)]
    batch_size: PositiveInt


class PromptCountsParams(Params):
    """How many captions of the splits train and reference are kept, and so embedded; all where it is null.

    They are chosen by ``seed``. As many as the updates of the longest training draw are enough: more would be embedded
    and seldom or never read.
    """

    seed: int
    train: PositiveInt | None
    reference: PositiveInt | None


class CaptionSetParams(Params):
    """How many captions of a split are sampled, how often each, and from which noise."""

    seed: Seed
    captions: PositiveInt
    images_per_caption: PositiveInt


class TeacherSamplingParams(Params):
    """How the teacher samples."""

    num_inference_steps: PositiveInt
    guidance_scale: NonNegativeFloat
    batch_size: PositiveInt
