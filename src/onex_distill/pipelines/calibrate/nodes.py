"""Nodes of the calibration."""

from typing import Any

import pandas as pd

from onex_distill.evaluation import calibration
from onex_distill.evaluation.scored import ConfidenceParams, Scored
from onex_distill.storage.tensor_table import TensorTable


def calibrate(
    teacher: TensorTable, params: calibration.CalibrationParams, confidence: ConfidenceParams
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Every variant on the teacher's images, and the nearest to the published row."""
    return calibration.calibrate(Scored("teacher", teacher), params, confidence)
