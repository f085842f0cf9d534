"""Whole pipelines through Kedro's own session, with outputs in a temporary folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from support import PROJECT


@pytest.fixture(scope="session")
def run_pipeline() -> Callable[..., Any]:
    """Run one pipeline under an environment with runtime parameters."""
    bootstrap_project(PROJECT)

    def run(name: str, params: dict[str, Any], env: str = "test", **filters: Any) -> Any:
        with KedroSession.create(project_path=PROJECT, env=env, runtime_params=params) as session:
            return session.run(pipeline_names=[name], **filters)

    return run


@pytest.fixture(scope="session")
def distilled(run_pipeline: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of one finished main job on conf/test."""
    data = tmp_path_factory.mktemp("distilled")
    run_pipeline("distill", {"data": str(data)})
    return data
