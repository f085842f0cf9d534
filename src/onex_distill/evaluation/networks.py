"""All networks that a configuration may name."""

from typing import Annotated

from pydantic import Field

from onex_distill.evaluation.pixel_network import PixelsParams
from onex_distill.evaluation.shapes_network import ShapesParams

Network = Annotated[ShapesParams | PixelsParams, Field(discriminator="kind")]
