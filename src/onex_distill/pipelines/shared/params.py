"""Parameters that several pipelines read."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from onex_distill.parameters import Params, Seed

LONGEST_SEQUENCE = 512  # T5 tokens; what StableDiffusion3Pipeline accepts in a call


class TextParams(Params):
    """T5 tokens per caption, captions per batch, and how captions become embeddings.

    ``encoding`` stored writes every caption's embeddings once; online encodes those of a batch when it is read, on
    ``device`` (auto is the accelerator), which takes no disk and time in every update. ``dtype`` is the encoders'.
    """

    max_sequence_length: Annotated[int, Field(gt=0, le=LONGEST_SEQUENCE)]
    encoding: Literal["stored", "online"]
    device: Literal["auto", "cpu"]
    dtype: Literal["fp32", "bf16", "fp16"]
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
    """How the teacher samples; a guidance scale of 1 is none."""

    num_inference_steps: PositiveInt
    guidance_scale: PositiveFloat
    batch_size: PositiveInt


class ReferencesParams(Params):
    """How many reference images the reference generator makes, and from which noise."""

    seed: Seed
    count: PositiveInt
    num_inference_steps: PositiveInt
    batch_size: PositiveInt
