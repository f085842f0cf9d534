"""The variant nearest to the published teacher is chosen, and nothing that is missing."""

import json

import pandas as pd
import pytest
import torch

from onex_distill.evaluation.calibration import CalibrationParams, calibrate
from onex_distill.evaluation.scored import ConfidenceParams, Scored
from onex_distill.storage.tensor_table import TensorTable

CONFIDENCE = ConfidenceParams(level=0.95, draws=50, groups=4, seed=0)


@pytest.fixture
def teacher(tmp_path):
    """CLIP scores of two networks, around 0.26 and 0.32; the published one is 0.3176. A third is missing."""
    noise = 0.001 * torch.randn(8, generator=torch.Generator().manual_seed(0))
    index = pd.DataFrame({"prompt_row": range(8), "text": [f"caption {row}" for row in range(8)], "method": "teacher"})
    columns = {"far.score": 0.26 + noise, "near.score": 0.32 + noise}
    table = TensorTable.write(tmp_path / "teacher", index, columns)
    networks = [{"name": name, "identity": {"model": name, "recipe": ""}, "rows": {}} for name in ("far", "near")]
    networks.append({"name": "absent", "missing": "not fetched"})
    (tmp_path / "teacher/networks.json").write_text(json.dumps(networks))
    return Scored("teacher", table)


def params(**changes):
    variants = [{"metric": "clip_score", "rows": ["far.score", "near.score", "absent.score"]}]
    return CalibrationParams.model_validate({"published": "sd3_medium", "variants": variants} | changes)


def test_the_nearest_variant_is_chosen(teacher):
    table, choices = calibrate(teacher, params(), CONFIDENCE)
    assert choices == {"clip_score": "near.score"}
    assert table["nearest"].tolist() == [False, True, False]
    assert table["difference"].tolist()[:2] == pytest.approx([0.26 - 0.3176, 0.32 - 0.3176], abs=1e-3)
    assert table["reason"].tolist()[2] == "not fetched"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": []}, "names no metric"),
        ({"variants": [{"metric": "fid", "rows": ["near.score"]}]}, "'fid' has no published value"),
        ({"published": "sd2"}, "'sd2' has no published rows; one of sd3_medium, sd35_large"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(teacher, changes, message):
    with pytest.raises(ValueError, match=message):
        calibrate(teacher, params(**changes), CONFIDENCE)
