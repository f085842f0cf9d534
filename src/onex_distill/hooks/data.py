"""Where a run's outputs are."""

from pathlib import Path

from kedro.framework.context import KedroContext


def data_folder(context: KedroContext) -> Path:
    """The data folder of the command line, or of the environment."""
    loader = context.config_loader
    folder = (loader.runtime_params or {}).get("data") or loader["globals"]["data"]
    return Path(context.project_path) / folder
