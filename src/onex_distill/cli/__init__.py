"""The project's commands: Kedro's ``run`` with readable errors, and what manages teachers and versions."""

import click

from onex_distill.cli.adopt import adopt_teacher
from onex_distill.cli.errors import readable
from onex_distill.cli.generate import generate
from onex_distill.cli.run import run

__all__ = ["cli", "readable"]


@click.group(name="onex-distill")
def cli() -> None:
    """Commands of this project."""


cli.add_command(run)
cli.add_command(adopt_teacher)
cli.add_command(generate)
