"""The project's commands: Kedro's ``run`` with readable errors, and what manages teachers and versions."""

import click
from kedro.framework.cli.project import run as kedro_run

from onex_distill.cli.adopt import adopt_teacher
from onex_distill.cli.errors import OneLineErrors, readable

__all__ = ["cli", "readable"]


@click.group(name="onex-distill")
def cli() -> None:
    """Commands of this project."""


cli.add_command(OneLineErrors(name="run", params=kedro_run.params, callback=kedro_run.callback, help=kedro_run.help))
cli.add_command(adopt_teacher)
