"""The project's context: commands that run nothing start without what the nodes import."""

from typing import Any

from kedro.framework.context import KedroContext
from kedro.io import CatalogProtocol, DataCatalog

DEFAULT = "__default__"


class LightContext(KedroContext):
    """Kedro reads the types of every node to check parameters, also for a catalog that is only listed or drawn.

    Here the catalog of a run, which has a version to save as, has checked parameters, as in Kedro, and so has
    ``params``; a catalog made for no run holds them as they are in conf. A run without the name of a pipeline is
    checked for the default one.
    """

    def _get_catalog(
        self,
        catalog_class: type = DataCatalog,
        save_version: str | None = None,
        load_versions: dict[str, str] | None = None,
    ) -> CatalogProtocol[Any, Any]:
        self._unchecked = save_version is None
        if not self._unchecked and self._pipelines_to_validate is None:
            self._pipelines_to_validate = [DEFAULT]
        try:
            catalog: CatalogProtocol[Any, Any] = super()._get_catalog(catalog_class, save_version, load_versions)
            return catalog
        finally:
            self._unchecked = False

    @property
    def params(self) -> dict[str, Any]:
        """All parameters, as the models that the nodes take."""
        if getattr(self, "_unchecked", False):
            unchecked: dict[str, Any] = self.config_loader["parameters"]
            return unchecked
        checked: dict[str, Any] = super().params
        return checked
