"""Parameters of the teacher pipeline."""

from pydantic import NonNegativeFloat, PositiveInt

from onex_distill.parameters import Params, Seed


class TrainingImagesParams(Params):
    """How many rendered images the transformer learns from."""

    seed: Seed
    count: PositiveInt
    batch_size: PositiveInt


class AcceptanceParams(Params):
    """How the finished teacher is measured against the renderer."""

    seed: Seed
    images: PositiveInt
    batch_size: PositiveInt
    num_inference_steps: PositiveInt
    guidance_scale: NonNegativeFloat
