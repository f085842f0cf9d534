"""Nodes whose functions are imported when they run, so that a graph can be listed and drawn without torch."""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

from kedro.pipeline import Node as KedroNode


class LazyFunction:
    """A function by the name of its module and its own; called as itself."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__name__ = module, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Import the function and call it."""
        return self.load()(*args, **kwargs)

    def load(self) -> Callable[..., Any]:
        """The function. Raises AttributeError for a name that its module lacks."""
        function: Callable[..., Any] = getattr(import_module(self.__module__), self.__name__)
        return function


class LazyModule:
    """A module whose functions are not imported yet: ``LazyModule("package.nodes").train`` is a LazyFunction."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> LazyFunction:
        return LazyFunction(self._name, name)


class Node(KedroNode):
    """Kedro's node of a LazyFunction; who asks for the function itself (types, source code) gets the real one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():  # a pipeline without namespace that reads what a namespaced one wrote
            warnings.filterwarnings("ignore", message="One or more dataset names contain '.'")
            super().__init__(*args, **kwargs)

    @property
    def func(self) -> Callable[..., Any]:
        """The function, imported."""
        return self._func.load() if isinstance(self._func, LazyFunction) else self._func

    @func.setter
    def func(self, func: Callable[..., Any]) -> None:
        self._func = func

    def _copy(self, **overwrite_params: Any) -> "Node":
        copied: KedroNode = super()._copy(**overwrite_params)
        copied.__class__ = Node  # Kedro names its own class here
        return copied  # type: ignore[return-value]
