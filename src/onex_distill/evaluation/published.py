"""Rows that the paper published (arXiv 2604.04018), for reading beside ours: never measured here, never mixed in."""

import pandas as pd

SOURCE = "published in arXiv 2604.04018, not measured here"
COLUMNS = ["method", "steps", "nfe", "fid", "clip_score", "aesthetic", "pick_score", "image_reward", "hps"]
ROWS: dict[str, list[tuple[object, ...]]] = {
    "sd3_medium": [
        ("teacher", 28, 56, None, 0.3176, 5.6348, 22.5554, 1.0429, 30.7197),
        ("Hyper-SD", 4, 8, 15.5475, 0.3127, 4.9582, 21.6407, 0.7543, 28.7578),
        ("PCM, 4 steps", 4, 4, 17.5605, 0.3102, 5.7743, 22.0690, 0.6715, 29.0864),
        ("Flash Diffusion", 4, 4, 15.6443, 0.3166, 5.5485, 22.3879, 0.8938, 29.4835),
        ("DMD2", 4, 4, 14.7125, 0.3122, 5.4632, 22.4120, 0.9981, 31.0152),
        ("TDM, 4 steps", 4, 4, 14.6424, 0.3128, 5.5494, 22.4681, 1.0021, 31.7512),
        ("SFD", 4, 4, 14.1349, 0.3149, 5.9197, 22.8155, 1.1196, 32.5337),
        ("PCM, 2 steps", 2, 2, 41.6561, 0.3077, 5.1325, 20.9493, 0.2011, 24.8431),
        ("TDM, 2 steps", 2, 2, 19.3005, 0.3186, 5.1441, 22.4756, 1.1101, 31.4725),
        ("1.x-Distill slow", 2, 1.75, 15.7863, 0.3208, 5.1844, 22.5161, 1.1312, 32.2550),
        ("1.x-Distill fast", 2, 1.67, 16.7179, 0.3204, 5.1206, 22.3342, 1.0673, 31.6850),
    ],
    "sd35_large": [
        ("teacher", 28, 56, None, 0.3196, 5.9178, 22.5994, 1.0641, 31.1081),
        ("Turbo", 4, 4, 15.3123, 0.3161, 6.1308, 22.7418, 0.9288, 30.4127),
        ("SFD", 4, 4, 17.3588, 0.3187, 5.9939, 22.9046, 1.2011, 32.9020),
        ("TDM", 2, 2, 26.8084, 0.3224, 5.3110, 22.1424, 0.9307, 28.4919),
        ("1.x-Distill", 2, 1.74, 22.0545, 0.3191, 5.7976, 22.7963, 1.1463, 32.0059),
    ],
}
DPG_COLUMNS = ["dpg", "dpg_global", "dpg_entity", "dpg_attribute", "dpg_relation", "dpg_other"]
DPG: dict[str, list[tuple[object, ...]]] = {
    "sd3_medium": [
        ("teacher", 56, 85.46, 92.01, 89.07, 89.88, 90.46, 91.67),
        ("1.x-Distill slow", 1.75, 86.13, 89.97, 92.26, 89.41, 90.77, 92.01),
    ],
    "sd35_large": [
        ("teacher", 56, 84.74, 90.02, 89.67, 90.97, 89.70, 89.53),
        ("1.x-Distill", 1.74, 85.11, 89.78, 90.79, 89.49, 92.21, 89.66),
    ],
}
"""DPG-Bench in percent, judged by mPLUG-large."""
LPIPS_DIVERSITY: dict[str, list[tuple[object, ...]]] = {
    "sd3_medium": [
        ("teacher", 56, 0.6594),
        ("Flash Diffusion", 4, 0.6161),
        ("TDM, 4 steps", 4, 0.6297),
        ("1.x-Distill slow", 1.75, 0.6432),
    ],
    "sd35_large": [],
}
"""Mean pairwise LPIPS between samples of one prompt, on COCO-1K."""


def published_table(teacher: str) -> pd.DataFrame:
    """The rows of one teacher with every published column, and ``source``.

    Raises ValueError for a teacher without published rows.
    """
    if teacher not in ROWS:
        raise ValueError(f"report.published {teacher!r} has no published rows; one of {', '.join(ROWS)}, or null")
    table = pd.DataFrame(ROWS[teacher], columns=COLUMNS)
    for rows, columns in ((LPIPS_DIVERSITY, ["lpips_diversity"]), (DPG, DPG_COLUMNS)):
        if rows[teacher]:
            part = pd.DataFrame(rows[teacher], columns=["method", "nfe", *columns])
            table = table.merge(part, on=["method", "nfe"], how="left", validate="one_to_one")
    return table.assign(source=SOURCE)
