"""All networks that a configuration may name."""

from typing import Annotated

from pydantic import Field

from onex_distill.evaluation.pixel_network import PixelsParams
from onex_distill.evaluation.scorers.clip import ClipParams
from onex_distill.evaluation.scorers.detector import DetectorParams
from onex_distill.evaluation.scorers.dinov2 import Dinov2Params
from onex_distill.evaluation.scorers.hps_v3 import HpsV3Params
from onex_distill.evaluation.scorers.image_reward import ImageRewardParams
from onex_distill.evaluation.scorers.inception import InceptionParams
from onex_distill.evaluation.scorers.lpips import LpipsParams
from onex_distill.evaluation.scorers.vqa import VqaParams
from onex_distill.evaluation.shapes_network import ShapesParams

Network = Annotated[
    ShapesParams
    | PixelsParams
    | ClipParams
    | DetectorParams
    | Dinov2Params
    | HpsV3Params
    | ImageRewardParams
    | InceptionParams
    | LpipsParams
    | VqaParams,
    Field(discriminator="kind"),
]
