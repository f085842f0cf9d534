"""The reader of conf with two words more, so that conf reads like a recipe.

``extends: OTHER`` in an environment's ``globals.yml``: what ``conf/OTHER`` says is read first, and this environment
names only what differs. ``like: GROUP`` in a group of parameters: everything of that group, and what stands beside
``like`` instead; it follows whatever an environment or ``--params`` changes in the other group.

``shared: true`` there: the environment is for others to extend, and none to run.

Files that hold nothing but names with a leading underscore (``catalog_paths.yml``) are seen by every environment.
"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from onex_distill.configuration import CheckedConfigLoader, check_files
from onex_distill.parameters import unknown_name

EXTENDS, LIKE, SHARED = "extends", "like", "shared"

Files = dict[Path, Any]


class RecipeConfigLoader(CheckedConfigLoader):
    """The reader of conf with ``extends`` and ``like``. Parameters, which hooks and context ask for, are read once."""

    _parameters: dict[str, Any] | None = None

    def __getitem__(self, key: str) -> dict[str, Any]:
        """A kind of configuration, merged. Raises ValueError for a circle of ``extends`` or ``like``, or a bad name."""
        if key != "parameters":
            config: dict[str, Any] = super().__getitem__(key)
            return config
        if self._parameters is None:
            self._parameters = resolve_likes(super().__getitem__(key))
        return deepcopy(self._parameters)

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "parameters":
            self._parameters = None
        super().__setitem__(key, value)

    def _read_raw_config(self, key: str) -> tuple[Files, Files, str, str, set[Path]]:
        base, own, base_path, env_path, processed = super()._read_raw_config(key)
        shared = {path: config for path, config in base.items() if all(str(name).startswith("_") for name in config)}
        for environment in self._ancestors():
            folder = self._get_conf_env_path(environment)
            check_files(Path(folder))
            secret = key == "credentials"
            shared |= self._read_dir_configs(folder, self.config_patterns[key], key, processed, secret)
        return base, shared | own, base_path, env_path, processed

    def _ancestors(self) -> list[str]:
        """The environments that this one extends, the most general first."""
        chain = [self.env or self.default_run_env]
        if any(config.get(SHARED) for config in self._globals_of(chain[0])):
            raise ValueError(f"conf/{chain[0]} is for other environments to extend, and none to run; name one of those")
        while (parent := self._parent(chain[0])) is not None:
            if parent in chain:
                raise ValueError(f"conf/{parent} extends itself, by {' and '.join(chain)}; correct its globals.yml")
            chain.insert(0, parent)
        return chain[:-1]

    def _parent(self, environment: str) -> str | None:
        if environment == self.base_env:
            return None
        parents = [str(config[EXTENDS]) for config in self._globals_of(environment) if EXTENDS in config]
        return parents[0] if parents else None

    def _globals_of(self, environment: str) -> list[Any]:
        folder = self._get_conf_env_path(environment)
        return list(self._read_dir_configs(folder, ["globals.yml"], "globals", set()).values())


def resolve_likes(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Groups without ``like``: each has what the group of that dotted name has, and its own entries instead.

    Raises ValueError for a name that is no group, and for groups that are like each other in a circle.
    """
    return {name: _resolved(value, tree, ()) for name, value in tree.items()}


def _resolved(value: Any, tree: Mapping[str, Any], seen: tuple[str, ...]) -> Any:
    if not isinstance(value, Mapping):
        return value
    if LIKE not in value:
        return {name: _resolved(item, tree, seen) for name, item in value.items()}
    other = str(value[LIKE])
    if other in seen:
        raise ValueError(f"parameters are like each other in a circle: {', '.join((*seen, other))}; give one its own")
    own = {name: item for name, item in value.items() if name != LIKE}
    group = _resolved(_find(tree, other), tree, (*seen, other))
    return _merged(group, {name: _resolved(item, tree, seen) for name, item in own.items()})


def _find(tree: Mapping[str, Any], dotted: str) -> Mapping[str, Any]:
    """The group of a dotted name, inside groups that are like others too."""
    group: Any = tree
    for name in dotted.split("."):
        if isinstance(group, Mapping) and name not in group and LIKE in group:
            group = _find(tree, str(group[LIKE]))
        if not isinstance(group, Mapping) or name not in group:
            raise ValueError(f"like: {dotted}: {unknown_name('group of parameters', name, group)}")
        group = group[name]
    if not isinstance(group, Mapping):
        raise ValueError(f"like: {dotted} is no group of parameters but the value {group!r}; name the group around it")
    return group


def _merged(group: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(group)
    for name, value in own.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged
