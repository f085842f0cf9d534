"""The command ``onex-distill``: inside a project, or with --conf-source where only the package is installed."""

from pathlib import Path

from kedro.framework.project import configure_project
from kedro.framework.startup import bootstrap_project
from kedro.utils import find_kedro_project

from onex_distill.cli import cli


def main() -> None:
    """Find the project that the current folder belongs to, and run a command of it."""
    project = find_kedro_project(Path.cwd())
    if project:
        bootstrap_project(project)
    else:
        configure_project("onex_distill")
    cli(prog_name="onex-distill")


if __name__ == "__main__":
    main()
