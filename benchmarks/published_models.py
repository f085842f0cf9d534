"""The configuration files of the published Stable Diffusion 3 checkpoints, in a folder as diffusers would find them.

They hold sizes and settings alone, no weights: enough to plan memory, or to build a model of the true shape.
"""

import shutil
from pathlib import Path
from typing import Literal, get_args

CONFIGS = Path(__file__).parent / "published"
PublishedModel = Literal["sd3_medium", "sd35_medium", "sd35_large"]
MODELS: tuple[PublishedModel, ...] = get_args(PublishedModel)


def write_configs(model: PublishedModel, folder: Path) -> Path:
    """Write every configuration file of a published checkpoint; return the folder."""
    for source in (CONFIGS / "shared", CONFIGS / model):
        shutil.copytree(source, folder, dirs_exist_ok=True)
    return folder
