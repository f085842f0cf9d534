"""Refuses parameters that nobody reads."""

from collections.abc import Iterator, Mapping
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines

from onex_distill.parameters import unknown_name

PATH_PARAMETERS = ("data", "raw")


class KnownParametersHook:
    """A mistyped ``--params`` name would be ignored without a word; this names it and the nearest known one."""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Raise ValueError for a runtime parameter that no pipeline takes."""
        used = {name for pipeline in pipelines.values() for name in pipeline.inputs() if name.startswith("params:")}
        known = [*PATH_PARAMETERS, *sorted(name.removeprefix("params:") for name in used)]
        for path in _leaves(run_params["runtime_params"]):
            if not any(path == name or path.startswith(f"{name}.") for name in known):
                raise ValueError(unknown_name("parameter", path, known))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all leaves of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
