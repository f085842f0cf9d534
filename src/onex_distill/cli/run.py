"""Kedro's ``run`` with readable errors, and with folders taken as they are typed."""

from copy import copy
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import _split_params, split_string

from onex_distill.cli.errors import OneLineErrors
from onex_distill.configuration import FOLDERS, check_folders


def split_params(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Kedro's reading of --params; ``data`` and ``raw`` are text, not YAML, with ``~`` as the home folder."""
    if not isinstance(value, str):
        return value
    items = [tuple(part.strip() for part in item.partition("=")) for item in split_string(ctx, param, value)]
    folders = {name: folder for name, _, folder in items if name in FOLDERS}
    others = [f"{name}{sign}{text}" for name, sign, text in items if name not in FOLDERS]
    try:
        check_folders(folders)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    expanded = {name: str(Path(folder).expanduser()) for name, folder in folders.items()}
    return _split_params(ctx, param, ",".join(others)) | expanded


def _option(option: click.Parameter) -> click.Parameter:
    if option.name != "params":
        return option
    option = copy(option)
    option.callback = split_params
    return option


run = OneLineErrors(
    name="run",
    params=[_option(option) for option in kedro_run.params],
    callback=kedro_run.callback,
    help=kedro_run.help,
)
