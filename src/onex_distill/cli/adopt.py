"""``adopt-teacher``: the explicit step from a teacher that was built to the one that pipelines read."""

import shutil
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.utils import env_option

from onex_distill.cli.errors import OneLineErrors
from onex_distill.cli.project import catalog_config
from onex_distill.cli.run import split_params
from onex_distill.parameters import unknown_name
from onex_distill.storage.files import sync_tree
from onex_distill.storage.versions import version_path, versions_of

ADOPTED = {  # dataset of the teacher pipeline to its name beside the committed teacher
    "built_teacher": "teacher",
    "built_evaluator": "evaluator",
    "built_recogniser": "recogniser",
    "built_captions": "shapes_captions.parquet",
    "built_acceptance": "teacher_acceptance.json",
    "built_acceptance_grid": "teacher_acceptance.png",
}
LAST = "built_acceptance"  # of the datasets of one run of the teacher pipeline; its version names the run


@click.command(name="adopt-teacher", cls=OneLineErrors)
@click.argument("version")
@env_option
@click.option("--params", default="", callback=split_params, help="As of `kedro run`: data=FOLDER,raw=FOLDER.")
@click.option("--yes", is_flag=True, help="Replace; without it the command only says what it would do.")
def adopt_teacher(version: str, env: str | None, params: dict[str, Any], yes: bool) -> None:
    """Replace the teacher and the readers that pipelines read by VERSION of `kedro run --pipelines=teacher`.

    What is replaced is kept in a folder of its own below the data folder.

    \f

    Args:
        version: The version of the built teacher.
        env: The Kedro environment; None for the default.
        params: Runtime parameters.
        yes: Replace the files; otherwise only say which.

    Raises:
        ValueError: The environment has no embedded teacher, the version is unknown, or it was adopted earlier.
    """
    catalog = catalog_config(env, params)
    if "hub_model" in catalog["teacher"]:
        raise ValueError(
            f"the teacher of this environment is {catalog['teacher']['hub_model']}, which a built one must not "
            "replace; adopt it in an environment with the embedded teacher"
        )
    built = {name: Path(catalog[name]["filepath"]) for name in ADOPTED}
    known = versions_of(built[LAST])
    if not known:
        raise ValueError(f"{built[LAST].parent} holds no teacher; build one with `kedro run --pipelines=teacher`")
    if version not in known:
        raise ValueError(unknown_name("version", version, known))
    raw, kept = Path(catalog["teacher"]["filepath"]).parent, built[LAST].parent / f"before-{version}"
    if kept.exists():
        raise ValueError(f"{kept} is there from an earlier adoption of this version; move it elsewhere first")
    for name, path in built.items():
        newest = max(each for each in versions_of(path) if each <= version)
        source, target = version_path(path, newest), raw / ADOPTED[name]
        click.echo(f"{target} {'is replaced by' if target.exists() else 'becomes'} {source}")
        if yes:
            adopt(source, target, kept)
    click.echo(f"What was replaced is in {kept}." if yes else "Nothing has been changed; add --yes to replace them.")


def adopt(source: Path, target: Path, kept: Path) -> None:
    """Copy a file or a folder to its place, whole or not at all; what had the place moves into the folder ``kept``."""
    partial = target.with_name(f".partial-{target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
    else:
        shutil.copyfile(source, partial)
    sync_tree(partial)
    if target.exists():
        kept.mkdir(parents=True, exist_ok=True)
        shutil.move(target, kept / target.name)
    partial.rename(target)
