"""What commands read of the project's configuration."""

from pathlib import Path
from typing import Any

from kedro.framework.session import KedroSession

from onex_distill.hooks.data import data_folder as of_context


def catalog_config(env: str | None, params: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The catalog's configuration of an environment with absolute file paths; nothing is loaded."""
    context = KedroSession.create(env=env, runtime_params=params).load_context()
    config: dict[str, dict[str, Any]] = context.config_loader["catalog"]
    for entry in config.values():
        if "filepath" in entry:
            entry["filepath"] = (context.project_path / entry["filepath"]).as_posix()
    return config


def data_folder(env: str | None, params: dict[str, Any]) -> Path:
    """The data folder of an environment, or the one on the command line."""
    return of_context(KedroSession.create(env=env, runtime_params=params).load_context())
