"""The project's catalog: versions that stay in order when the clock does not."""

import logging
import re
from pathlib import Path
from typing import Any

from kedro.framework.context import CatalogCommandsMixin
from kedro.io import DataCatalog
from kedro.io.core import generate_timestamp

from onex_distill.storage.versions import VERSION, version_after

logger = logging.getLogger(__name__)


class OrderedCatalog(DataCatalog, CatalogCommandsMixin):
    """Kedro loads the version whose name sorts last; a new one must come after all that are there.

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
        """As in Kedro, with a save version later than every version on disk."""
        version = save_version or generate_timestamp()
        newest = newest_version(catalog or {})
        if newest is not None and version <= newest:
            version = version_after(newest)
            logger.warning("The clock is behind the newest version on disk, %s; saving as %s.", newest, version)
        return super().from_config(catalog, credentials, load_versions, version, validation_enabled)


def newest_version(catalog: dict[str, dict[str, Any]]) -> str | None:
    """The last version of any local, versioned dataset of a catalog configuration, factories included."""
    paths = {Path(entry["filepath"]) for entry in catalog.values() if entry.get("versioned") and "filepath" in entry}
    patterns = {(path.parent, re.sub(r"\{.*?\}", "*", path.name)) for path in paths}
    names = (version.name for parent, name in patterns for version in parent.glob(f"{name}/*"))
    return max((name for name in names if VERSION.fullmatch(name)), default=None)
