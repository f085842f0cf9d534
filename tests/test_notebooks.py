"""The notebooks run from the first cell to the last, and are stored without what they print."""

import json
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from support import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
SECONDS = 300


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["cache_and_dial", "distil_and_look", "guidance_and_diversity"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code"
    )


def runs() -> list[Any]:
    """Every notebook; the one that distils does what the tests of the main job do."""
    slow = {"distil_and_look": pytest.mark.slow}
    return [pytest.param(path, id=path.stem, marks=slow.get(path.stem, ())) for path in NOTEBOOKS]


@pytest.mark.parametrize("path", runs())
def test_a_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:  # what it makes goes beside the test
        cell.source = cell.source.replace('str(project / "data" / "notebook")', repr(str(tmp_path / "data")))
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
