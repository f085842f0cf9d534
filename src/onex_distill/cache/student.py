"""The newest exported student, found from wherever one works."""

from pathlib import Path
from typing import Any

from onex_distill.cache.export import FractionalStableDiffusion3Pipeline

MODELS = "06_models"


def load_student(
    data: str | Path | None = None, name: str = "student_pipeline", **arguments: Any
) -> FractionalStableDiffusion3Pipeline:
    """Load the newest export of a project.

    Args:
        data: The data folder of the run (``--params=data=``). Without it, ``data`` of the working folder, of a folder
            above it, or of the project that this package is installed from.
        name: ``student_pipeline``, or ``dial_pipeline`` for the student of many budgets.
        **arguments: Those of ``FractionalStableDiffusion3Pipeline.from_pretrained``, for example ``torch_dtype``.

    Raises:
        ValueError: When there is no export, with the folders that were searched.
    """
    folders = [Path(data).expanduser()] if data is not None else _data_folders()
    for folder in folders:
        exports = sorted((folder / MODELS / name).glob(f"*/{name}/model_index.json"))
        if exports:
            return FractionalStableDiffusion3Pipeline.from_pretrained(exports[-1].parent, **arguments)
    made_by = "pareto" if name == "dial_pipeline" else "distill"
    raise ValueError(
        f"no {name} below {', '.join(str(folder / MODELS) for folder in folders)}; run `kedro run "
        f"--pipelines={made_by}` first, or name its data folder: load_student(data=...)"
    )


def _data_folders() -> list[Path]:
    here, package = Path.cwd(), Path(__file__).resolve()
    projects = [folder for folder in (here, *here.parents, *package.parents) if (folder / "data" / MODELS).is_dir()]
    return [folder / "data" for folder in dict.fromkeys(projects)] or [here / "data"]
