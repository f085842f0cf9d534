"""Kedro's ``run`` with readable errors, and with folders taken as they are typed."""

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import split_string
from kedro.framework.project import pipelines
from omegaconf import OmegaConf

from onex_distill.cli.errors import OneLineErrors
from onex_distill.configuration import FOLDERS, check_folders
from onex_distill.context import DEFAULT
from onex_distill.parameters import unknown_name


def split_params(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Kedro's reading of --params; ``data`` and ``raw`` are text, not YAML, with ``~`` as the home folder."""
    if not isinstance(value, str):
        return value
    typed: list[str] = []
    for item in split_string(ctx, param, value):
        if "=" not in item and typed:  # a value with commas, as bands and lists are
            typed[-1] += f",{item}"
        else:
            typed.append(item)
    items = [tuple(part.strip() for part in item.partition("=")) for item in typed]
    for name, sign, text in items:
        if not name or not sign:
            raise click.ClickException(f"--params holds {name or text!r}, which is no name=value")
    folders = {name: folder for name, _, folder in items if name in FOLDERS}
    try:
        check_folders(folders)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    expanded = {name: str(Path(folder).expanduser()) for name, folder in folders.items()}
    others = OmegaConf.from_dotlist([f"{name}={text}" for name, _, text in items if name not in FOLDERS])
    values: Any = OmegaConf.to_container(others)
    return {**values, **expanded}


def _option(option: click.Parameter) -> click.Parameter:
    if option.name != "params":
        return option
    option = copy(option)
    option.callback = split_params
    return option


def checked_run(**chosen: Any) -> Any:
    """Kedro's run, after a look at the names of pipelines and nodes."""
    check_names(chosen)
    return kedro_run.callback(**chosen)  # type: ignore[misc]  # a command has one


def check_names(chosen: Mapping[str, Any]) -> None:
    """Raise ValueError of one line for a pipeline, or a node of the chosen ones, that is not there."""
    wanted = [*(chosen["pipelines"] or ()), *filter(None, [chosen["pipeline"]])]
    for name in wanted:
        if name not in pipelines:
            raise ValueError(unknown_name("pipeline", name, set(pipelines) - {DEFAULT}))
    nodes = {node.name for name in wanted or [DEFAULT] for node in pipelines[name].nodes}
    for option in ("node_names", "from_nodes", "to_nodes"):
        for name in chosen[option] or ():
            if name not in nodes:
                raise ValueError(unknown_name("node", name, nodes))


run = OneLineErrors(
    name="run",
    params=[_option(option) for option in kedro_run.params],
    callback=checked_run,
    help=kedro_run.help,
)
