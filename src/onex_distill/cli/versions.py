"""``runs``, ``compare`` and ``prune``: what there is, how it differs, and what can go."""

from pathlib import Path
from typing import Any

import click
import pandas as pd
from kedro.framework.cli.utils import env_option
from kedro.framework.session import KedroSession

from onex_distill.cli.errors import OneLineErrors
from onex_distill.cli.project import catalog_config, data_folder
from onex_distill.cli.run import split_params
from onex_distill.hooks.registered import all_pipelines
from onex_distill.parameters import unknown_name
from onex_distill.storage.files import remove_made
from onex_distill.storage.records import RunRecord, changes, needed, read_records
from onex_distill.storage.versions import version_path, versions_of

MIB = 2**20
params_option = click.option("--params", default="", callback=split_params, help="As of `kedro run`: data=FOLDER.")


@click.command(name="runs", cls=OneLineErrors)
@env_option
@params_option
def runs(env: str | None, params: dict[str, Any]) -> None:
    """List the runs whose versions are below the data folder, the newest last."""
    data = data_folder(env, params)
    records = read_records(data)
    if not records:
        click.echo(f"No run is recorded below {data}.")
        return
    for version, record in records.items():
        given = " ".join(f"{name}={value}" for name, value in _given(record).items())
        click.echo(
            f"{version}  {','.join(record.pipelines)}  {record.seconds:.0f} s  {record.status}  {given}".rstrip()
        )


@click.command(name="compare", cls=OneLineErrors)
@click.argument("before")
@click.argument("after")
@env_option
@params_option
def compare(before: str, after: str, env: str | None, params: dict[str, Any]) -> None:
    """Print the parameters in which two runs differ, and their metrics side by side.

    \f

    Args:
        before: The version of the first run.
        after: The version of the second run.
        env: The Kedro environment; None for the default.
        params: Runtime parameters.

    Raises:
        ValueError: No such version is recorded.
    """
    records = read_records(data_folder(env, params))
    for version in (before, after):
        if version not in records:
            raise ValueError(
                unknown_name("version", version, records) if records else f"no run {version!r} is recorded"
            )
    first, second = records[before], records[after]
    differing = changes(first.parameters, second.parameters)
    differing |= changes({"commit": first.commit, **first.packages}, {"commit": second.commit, **second.packages})
    click.echo("\n".join(f"{name}: {old} -> {new}" for name, (old, new) in differing.items()) or "Same parameters.")
    path = Path(catalog_config(env, params)["metrics_table"]["filepath"])
    tables = [_metrics(path, record) for record in (first, second)]
    for method in [name for name in tables[0].index if name in tables[1].index]:
        click.echo(f"\n{method}")
        rows = {name: [_cell(table.loc[method], name) for table in tables] for name in _metric_names(tables[0])}
        click.echo(pd.DataFrame.from_dict(rows, orient="index", columns=[before, after]).to_string())


@click.command(name="prune", cls=OneLineErrors)
@env_option
@params_option
@click.option("--yes", is_flag=True, help="Remove; without it the command only says what it would remove.")
def prune(env: str | None, params: dict[str, Any], yes: bool) -> None:
    """Remove recorded versions that are not the newest and that nothing newest was made from."""
    records, total = read_records(data_folder(env, params)), 0
    paths = _paths(env, params)
    newest = {name: versions[-1] for name, path in paths.items() if (versions := versions_of(path))}
    keep = needed(newest, records)
    for name, path in paths.items():
        for version in versions_of(path):
            if (name, version) in keep or version not in records or records[version].outputs().get(name) != version:
                continue
            size = _remove(version_path(path, version), yes)
            total += size
            click.echo(f"{version_path(path, version)}  {size / MIB:.1f} MiB")
    click.echo(f"{total / MIB:.1f} MiB {'removed' if yes else 'could be removed; add --yes to do it'}.")


def _given(record: RunRecord) -> dict[str, Any]:
    filters = {name: ",".join(map(str, value)) for name, value in record.command_line.items() if name != "params"}
    typed = dict(record.command_line.get("params", {}))
    typed.pop("data", None)
    return filters | ({"params": typed} if typed else {})


def _paths(env: str | None, params: dict[str, Any]) -> dict[str, Path]:
    """File paths of every versioned dataset that a pipeline makes, factories resolved."""
    catalog = KedroSession.create(env=env, runtime_params=params).load_context().catalog
    names = {name for pipeline in all_pipelines().values() for name in pipeline.all_outputs()}
    datasets = {name: catalog.get(name) for name in sorted(names)}
    return {name: Path(each._filepath) for name, each in datasets.items() if each and getattr(each, "_version", None)}


def _metrics(path: Path, record: RunRecord) -> pd.DataFrame:
    file = version_path(path, record.outputs().get("metrics_table") or record.version)
    if not file.is_file():
        raise ValueError(f"the run {record.version} has no metrics table; its pipelines: {', '.join(record.pipelines)}")
    return pd.read_csv(file, index_col="method")


def _metric_names(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.select_dtypes("number") if not str(name).endswith(("_low", "_high"))]


def _cell(row: "pd.Series[Any]", name: str) -> str:
    if name not in row or pd.isna(row[name]):
        return ""
    interval = f" [{row[f'{name}_low']:.4g}, {row[f'{name}_high']:.4g}]" if f"{name}_low" in row else ""
    return f"{row[name]:.4g}{interval}"


def _remove(path: Path, yes: bool) -> int:
    """Bytes of a file or a folder, which is removed if told to; what no run made stays in it."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files)
    if yes:
        remove_made(path) if path.is_dir() else path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return size
