"""Says before a run which of its inputs have to be made first, or made again."""

from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from onex_distill.datasets.handles import HandlesDataset
from onex_distill.hooks.registered import made_by, maker_of


class MissingInputsHook:
    """Kedro would say it node by node, with the description of a dataset."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Raise ValueError for inputs that are not there yet or out of date, with the command that makes them."""
        missing = [name for name in sorted(pipeline.inputs()) if ":" not in name and not _exists(catalog, name)]
        makers = {name: maker for name in missing if (maker := made_by(name)) is not None}
        if makers:
            commands = " and ".join(f"`kedro run --pipelines={name}`" for name in dict.fromkeys(makers.values()))
            be = "is" if len(makers) == 1 else "are"
            raise ValueError(f"{', '.join(makers)} {be} not there yet; run {commands} first")
        for name in sorted(pipeline.inputs()):
            _check_newest(name, catalog.get(name))


def _exists(catalog: CatalogProtocol[Any, Any], name: str) -> bool:
    dataset = catalog.get(name)
    return dataset is not None and bool(dataset.exists())


def _check_newest(name: str, dataset: Any) -> None:
    """Raise ValueError for a gathered input, not pinned, that names what has a newer version by now."""
    outdated = dataset.outdated() if isinstance(dataset, HandlesDataset) and dataset.exists() else None
    if outdated is not None:
        maker, own = maker_of(name), dataset.resolve_load_version()
        command = f"`kedro run --pipelines={made_by(name)} --from-nodes={maker}`" if maker else "the node that makes it"
        raise ValueError(
            f"{name} names version {outdated.version} of {outdated.name}, whose newest is {outdated.newest}; run "
            f"{command}, or keep the older one with --load-versions={name}:{own}"
        )
