"""Whole pipelines through Kedro's own session, with outputs in a temporary folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from support import PROJECT


@pytest.fixture(scope="session")
def run_pipeline() -> Callable[..., Any]:
    """Run one pipeline under an environment with runtime parameters."""
    bootstrap_project(PROJECT)

    def run(name: str, params: dict[str, Any], env: str = "test", **filters: Any) -> Any:
        session = KedroSession.create(project_path=PROJECT, env=env, runtime_params=params)
        with session:
            return session.run(pipeline_names=[name], **filters)

    return run


@pytest.fixture(scope="session")
def foreign(run_pipeline: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[Path, bytes]:
    """Files of a user beside and inside the place of every output and every run folder of every pipeline."""
    data = tmp_path_factory.mktemp("distilled")
    session = KedroSession.create(project_path=PROJECT, env="test", runtime_params={"data": str(data)})
    with session:
        catalog = session.load_context().catalog
    folders = set()
    for pipeline in pipelines.values():
        datasets = [catalog[name] for name in pipeline.all_outputs() if hasattr(catalog[name], "_filepath")]
        paths = [Path(dataset._filepath) for dataset in datasets]
        versioned = [path for path, dataset in zip(paths, datasets, strict=True) if dataset._version]
        folders |= {*(path.parent for path in paths), *versioned, data / "06_models"}
        folders |= {data / "06_models/runs" / node.name for node in pipeline.nodes if "runs" in node.inputs}
    files = {folder / "!mine.txt": str(folder).encode() for folder in folders}
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return files


@pytest.fixture(scope="session")
def distilled(run_pipeline: Callable[..., Any], foreign: dict[Path, bytes]) -> Iterator[Path]:
    """The data folder of one finished main job on conf/test, in which a user has files of their own."""
    data = next(path for path in foreign if path.parent.name == "06_models").parents[1]
    run_pipeline("distill", {"data": str(data)})
    yield data
    assert lost(foreign) == []  # whatever pipelines the tests have run on this folder


def lost(foreign: dict[Path, bytes]) -> list[Path]:
    """The files of a user that are gone or changed."""
    return [path for path, content in foreign.items() if not path.is_file() or path.read_bytes() != content]
