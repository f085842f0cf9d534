"""The project's catalog: versions that stay in order, and files that are whole or not there."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from kedro.framework.context import CatalogCommandsMixin
from kedro.io import DataCatalog
from kedro.io.core import AbstractDataset, AbstractVersionedDataset

from onex_distill.hooks.registered import all_pipelines
from onex_distill.parameters import unknown_name
from onex_distill.storage.files import sync_tree
from onex_distill.storage.versions import VERSION


class OrderedCatalog(DataCatalog, CatalogCommandsMixin):
    """Kedro loads the version whose name sorts last; a run whose own would come before one that is there is refused.

    A clock that jumped backwards (a machine joining a cluster, a restored virtual machine) would otherwise make a run
    save its results and then load older ones.
    """

    @classmethod
    def from_config(
        cls,
        catalog: dict[str, dict[str, Any]] | None,
        credentials: dict[str, dict[str, Any]] | None = None,
        load_versions: dict[str, str] | None = None,
        save_version: str | None = None,
        validation_enabled: bool = True,
    ) -> DataCatalog:
        """As in Kedro.

        Raises ValueError for a name in ``load_versions`` that no pipeline has, which a factory would take, and for a
        ``save_version``, which is the session's, that is not after every version on disk.

        Args:
            catalog: Datasets by name.
            credentials: Credentials by name.
            load_versions: The version of a dataset to load, by name; the newest otherwise.
            save_version: The version that is written.
            validation_enabled: As in Kedro.

        Returns:
            A catalog of these datasets.

        Raises:
            ValueError: A version to load has no dataset, or the version to save is not after every version on disk.
        """
        check_load_versions(load_versions or {})
        newest = newest_version(catalog or {}) if save_version is not None else None
        if save_version is not None and newest is not None and save_version <= newest.name:
            raise ValueError(
                f"the clock is behind: this run would be version {save_version}, but {newest} is there and would be "
                "loaded in its place; set the clock, move that version away, or write elsewhere with --params=data=DIR"
            )
        return super().from_config(catalog, credentials, load_versions, save_version, validation_enabled)

    def save(self, ds_name: str, data: Any) -> None:
        """As in Kedro; what fails halfway leaves nothing that a later load would take for the newest version."""
        dataset = self[ds_name]
        if isinstance(getattr(dataset, "_filepath", None), PurePath) and not getattr(dataset, "writes_whole", False):
            with written_whole(dataset):
                super().save(ds_name, data)
        else:
            super().save(ds_name, data)


def check_load_versions(load_versions: dict[str, str]) -> None:
    """Raise ValueError for a name that is no dataset of any pipeline."""
    if not load_versions:
        return
    known = {name for pipeline in all_pipelines().values() for name in pipeline.datasets() if ":" not in name}
    for name in load_versions:
        if name not in known:
            raise ValueError(unknown_name("dataset in --load-versions", name, known))


@contextmanager
def written_whole(dataset: AbstractDataset[Any, Any]) -> Iterator[None]:
    """Let a dataset of one local file write into a folder beside it; rename the file after the block.

    Raises Kedro's DatasetError for a version that is there already.
    """
    shown: PurePath = dataset._filepath  # type: ignore[attr-defined]
    final = Path(dataset._get_save_path() if isinstance(dataset, AbstractVersionedDataset) else shown)
    beside = Path(shown).with_name(f".partial-{shown.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    dataset._filepath = type(shown)(beside / shown.name)  # type: ignore[attr-defined]
    try:
        yield
        partial = beside / final.relative_to(shown.parent)
        sync_tree(partial)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(final)
    finally:
        dataset._filepath = shown  # type: ignore[attr-defined]
        shutil.rmtree(beside, ignore_errors=True)


def newest_version(catalog: dict[str, dict[str, Any]]) -> Path | None:
    """The folder of the last version of any local, versioned dataset of a catalog configuration, factories included."""
    paths = {Path(entry["filepath"]) for entry in catalog.values() if entry.get("versioned") and "filepath" in entry}
    patterns = {(path.parent, re.sub(r"\{.*?\}", "*", path.name)) for path in paths}
    versions = (version for parent, name in patterns for version in parent.glob(f"{name}/*"))
    return max((path for path in versions if VERSION.fullmatch(path.name)), key=lambda path: path.name, default=None)
