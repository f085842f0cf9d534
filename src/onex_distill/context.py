"""The project's context: commands that run nothing start without what the nodes import."""

from typing import Any

from kedro.framework.context import KedroContext


class LightContext(KedroContext):
    """Kedro reads the types of every node to check parameters, also for a catalog that is only listed or drawn.

    Here the catalog of a run has checked parameters, as in Kedro, and so has ``params``; a catalog made for no run
    holds them as they are in conf.
    """

    def _get_parameters(self) -> dict[str, Any]:
        self._unchecked = self._pipelines_to_validate is None
        try:
            return super()._get_parameters()
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
