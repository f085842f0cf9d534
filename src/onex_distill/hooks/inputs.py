"""Says before a run which of its inputs another pipeline has to make first."""

from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from onex_distill.hooks.registered import made_by


class MissingInputsHook:
    """Kedro would say it node by node, with the description of a dataset."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Raise ValueError for inputs that are not there yet, with the command that makes them."""
        missing = [name for name in sorted(pipeline.inputs()) if ":" not in name and not _exists(catalog, name)]
        makers = {name: maker for name in missing if (maker := made_by(name)) is not None}
        if makers:
            commands = " and ".join(f"`kedro run --pipelines={name}`" for name in dict.fromkeys(makers.values()))
            be = "is" if len(makers) == 1 else "are"
            raise ValueError(f"{', '.join(makers)} {be} not there yet; run {commands} first")


def _exists(catalog: CatalogProtocol[Any, Any], name: str) -> bool:
    dataset = catalog.get(name)
    return dataset is not None and bool(dataset.exists())
