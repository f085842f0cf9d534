"""The project's commands: Kedro's ``run`` with readable errors, and what manages teachers and versions."""

import click

from onex_distill.cli.adopt import adopt_teacher
from onex_distill.cli.errors import readable
from onex_distill.cli.generate import generate
from onex_distill.cli.run import run
from onex_distill.cli.versions import compare, prune, runs

__all__ = ["cli", "readable"]


@click.group(name="onex-distill")
def cli() -> None:
    """Commands of this project."""


for command in (run, adopt_teacher, generate, runs, compare, prune):
    cli.add_command(command)
