"""The built wheel runs in a folder that is no project, where only the package and its dependencies are."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support import PROJECT

SCRIPT = """
import onex_distill
from importlib.metadata import distribution
print(onex_distill.__file__)
distribution("onex-distill").entry_points["onex-distill"].load()()
"""  # what the installed command does
OPTIONS = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made of a copy of the sources and unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(PROJECT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(PROJECT / name, source / name)
    subprocess.run([sys.executable, "-m", "pip", "wheel", *OPTIONS, "-w", folder, source], check=True)
    with zipfile.ZipFile(next(folder.glob("onex_distill-*.whl"))) as wheel:
        wheel.extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
def onex_distill(installed, tmp_path):
    """Run the package of the wheel in an empty folder, and say how it ended and what it wrote on the terminal."""

    def run(*arguments: str, start: tuple[str, str] = ("-m", "onex_distill")) -> tuple[int, str]:
        environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "400"}
        result = subprocess.run(
            [sys.executable, *start, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        return result.returncode, result.stdout + result.stderr

    return run


def test_the_wheel_has_the_command_its_types_and_its_licence(installed):
    names = {path.relative_to(installed).as_posix() for path in installed.rglob("*")}
    assert {"onex_distill/py.typed", "onex_distill/pipelines/stage_one/nodes.py"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    entries = next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    assert "onex-distill = onex_distill.__main__:main" in entries


@pytest.mark.parametrize("start", [("-m", "onex_distill"), ("-c", SCRIPT)], ids=["module", "command"])
def test_help_names_the_options(onex_distill, installed, start):
    status, text = onex_distill("run", "--help", start=start)
    assert status == 0, text
    assert "--conf-source" in text
    assert "Usage: onex-distill run" in text
    assert "-c" not in start or str(installed / "onex_distill/__init__.py") in text


def test_without_a_project_one_line_says_where_conf_is_named(onex_distill, tmp_path):
    status, text = onex_distill("run", "--pipelines=distill")
    assert status == 1
    assert f"Error: there is no configuration {tmp_path / 'conf'}; run this in the folder of the project" in text
    assert "--conf-source=FOLDER" in text
    assert "Traceback" not in text


def test_a_pipeline_runs_with_the_conf_that_is_named(onex_distill, tmp_path):
    raw = f"--params=data={tmp_path / 'data'},raw={PROJECT / 'data/01_raw'}"
    conf = f"--conf-source={PROJECT / 'conf'}"
    status, text = onex_distill("run", "--pipelines=distill", "--to-nodes=prepare_prompts", "--env=test", conf, raw)
    assert status == 0, text
    assert list((tmp_path / "data").rglob("prompts*"))
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
