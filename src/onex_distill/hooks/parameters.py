"""Refuses names that nobody reads: of parameters, on the command line or in conf, and of datasets to load."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

from onex_distill.configuration import PATHS
from onex_distill.hooks.registered import all_pipelines
from onex_distill.parameters import unknown_name

RUNNERS = ("ThreadRunner", "ParallelRunner")


class KnownNamesHook:
    """A mistyped name would be ignored without a word; this names it and the nearest known one."""

    def __init__(self) -> None:
        self._parameters: Mapping[str, Any] = {}
        self._conf = Path()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep what the files and the command line say, before it becomes models."""
        self._parameters = context.config_loader["parameters"]
        self._conf = Path(context.config_loader.conf_source)

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Raise ValueError for a parameter or a runner that no pipeline takes."""
        for runner in RUNNERS:
            if runner in run_params["runner"]:
                raise ValueError(
                    f"{runner} cannot run these pipelines: a node uses all cores or GPUs by itself, and models are "
                    "built in ways that threads disturb; leave --runner out, and set compute.processes for more ranks"
                )
        everything = all_pipelines().values()
        used = {name for pipeline in everything for name in pipeline.inputs() if name.startswith("params:")}
        known = [*PATHS, *sorted(name.removeprefix("params:") for name in used)]
        typed = {**self._parameters, **run_params["runtime_params"]}
        groups = {name.partition(".")[0] for name in known}
        for path in _leaves(typed):
            group = path.partition(".")[0]
            if group not in groups:
                raise ValueError(unknown_name("parameter", group, groups) + self._place(path))
            if not any(path == name or path.startswith(f"{name}.") for name in known):
                raise ValueError(unknown_name("parameter", path, known) + self._place(path))

    def _place(self, path: str) -> str:
        """The file that holds a parameter, if one does."""
        for file in sorted(self._conf.glob("*/parameters*.yml")) if self._conf.is_dir() else ():
            if path in set(_leaves(yaml.safe_load(file.read_text(encoding="utf-8")) or {})):
                return f" (in {file})"
        return ""


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all leaves of nested mappings; names that begin with an underscore are only referred to."""
    for key, value in tree.items():
        if not prefix and str(key).startswith("_"):
            continue
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
