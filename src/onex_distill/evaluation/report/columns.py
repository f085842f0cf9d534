"""What each column of the tables is called, its unit, which way is better, and its digits."""

import math
from typing import Literal, NamedTuple


class Column(NamedTuple):
    """How a column is shown."""

    title: str
    unit: str
    better: Literal["higher", "lower", ""]
    digits: int


COLUMNS: dict[str, Column] = {
    "steps": Column("Steps", "", "", 0),
    "nfe": Column("Evaluations", "per image, by blocks", "lower", 2),
    "nfe_flops": Column("Evaluations", "per image, by FLOPs", "lower", 2),
    "gflops_per_image": Column("GFLOPs", "per image, without decoding", "lower", 1),
    "seconds_per_image": Column("Time", "s per image", "lower", 4),
    "fid": Column("FID", "to the teacher", "lower", 2),
    "patch_fid": Column("Patch FID", "to the teacher", "lower", 2),
    "dinov2_distance": Column("DINOv2 distance", "to the teacher", "lower", 2),
    "alignment": Column("Alignment", "share of images", "higher", 3),
    "clip_score": Column("CLIP score", "cosine", "higher", 4),
    "aesthetic": Column("Aesthetic score", "1 to 10", "higher", 3),
    "pick_score": Column("PickScore", "", "higher", 3),
    "image_reward": Column("ImageReward", "", "higher", 3),
    "hps": Column("HPSv2", "percent", "higher", 2),
    "diversity": Column("Diversity", "distance within captions", "higher", 2),
    "lpips_diversity": Column("LPIPS diversity", "within captions", "higher", 4),
    "precision": Column("Precision", "share", "higher", 3),
    "recall": Column("Recall", "share", "higher", 3),
    "saturation": Column("Saturation", "0 to 1; the teacher's is right", "", 3),
    "contrast": Column("Contrast", "of luma; the teacher's is right", "", 3),
}
MAIN = ("nfe", "fid", "alignment", "clip_score", "pick_score", "diversity", "lpips_diversity", "precision", "recall")
PRIMARY = ("alignment", "clip_score", "pick_score", "image_reward", "hps", "aesthetic")
SPREAD = ("diversity", "lpips_diversity")
ARROWS = {"higher": "↑", "lower": "↓", "": ""}


def described(name: str) -> Column:
    """A column as it is shown; entropies and total variations name their attribute, benchmarks their part and judge."""
    for prefix, column in (
        ("entropy_", Column("Entropy of the", "nats", "higher", 3)),
        ("total_variation_", Column("Distance to the renderer's", "total variation", "lower", 3)),
    ):
        if name.startswith(prefix):
            return column._replace(title=f"{column.title} {name.removeprefix(prefix)}")
    for prefix, column in (
        ("dpg", Column("DPG-Bench", "percent", "higher", 2)),
        ("geneval_style", Column("GenEval-style", "share of images", "higher", 3)),
    ):
        if name.startswith(prefix):
            return column._replace(title=f"{column.title}{name.removeprefix(prefix).replace('_', ' ')}")
    return COLUMNS.get(name, Column(name, "", "", 3))


def number(value: float, digits: int) -> str:
    """A number in the one format of all tables; a dash where there is none."""
    return "-" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"  # no minus before a zero
