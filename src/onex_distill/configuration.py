"""Kedro's reader of conf, which says in one line and with file and line what is wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from kedro.config import OmegaConfigLoader

from onex_distill.parameters import unknown_name

FOLDERS = ("data", "raw")  # runtime parameters that are folders
PATHS = (*FOLDERS, "generation_captions")  # all that the catalog takes from the command line
WILDCARDS = "*?[]"


class CheckedConfigLoader(OmegaConfigLoader):
    """Refuses a missing source, an unknown environment, broken YAML, a key that is there twice, and a bad folder."""

    def __init__(
        self, conf_source: str, env: str | None = None, runtime_params: dict[str, Any] | None = None, **arguments: Any
    ) -> None:
        source, base, default = Path(conf_source), arguments.get("base_env"), arguments.get("default_run_env")
        if "://" not in str(conf_source) and not source.exists():
            raise ValueError(
                f"there is no configuration {source}; run this in the folder of the project, or say where its conf is: "
                "--conf-source=FOLDER"
            )
        if source.is_dir():  # and no archive
            known = sorted(path.name for path in source.iterdir() if path.is_dir())
            if env is not None and env not in known:
                raise ValueError(unknown_name("environment", env, known))
            for name in {base, env or default} - {None}:
                check_files(source / str(name))
        check_folders(runtime_params or {})
        super().__init__(conf_source, env, runtime_params, **arguments)


def check_folders(runtime_params: dict[str, Any]) -> None:
    """Raise ValueError for a ``data`` or ``raw`` that is no text, is empty, or that Kedro would take for a pattern."""
    for name in FOLDERS:
        value = runtime_params.get(name, "folder")
        if not isinstance(value, str):
            raise ValueError(f"{name} is a folder, but {value!r} is no text; put it in quotes")
        if not value.strip():
            raise ValueError(f"{name} is empty (an unset variable?); give it a folder")
        if any(character in value for character in WILDCARDS):
            raise ValueError(f"{name} is {value!r}, in which {' '.join(WILDCARDS)} are wildcards; rename that folder")


def check_files(folder: Path) -> None:
    """Raise ValueError with file and line for a YAML file that cannot be read, or that holds a key twice."""
    for path in sorted((*folder.rglob("*.yml"), *folder.rglob("*.yaml"))):
        try:
            node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{path}, line {mark.line + 1}" if mark else str(path)
            raise ValueError(f"{place} is no YAML: {error.problem}") from error
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
        if node is None:
            continue
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f"{path} is no mapping; write `name: value`")
        for key, first in _repeated(node, set()):
            raise ValueError(
                f"{path}, line {key.start_mark.line + 1}: the key {key.value!r} is there already, in line "
                f"{first.start_mark.line + 1}; remove one"
            )


def _repeated(node: yaml.Node, seen: set[int]) -> Iterator[tuple[yaml.ScalarNode, yaml.ScalarNode]]:
    """Keys that a mapping holds twice, with the first of each; merges (``<<``) may be overridden."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    children = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        first: dict[str, yaml.ScalarNode] = {}
        children = [value for _, value in node.value]
        for key, _ in node.value:
            if key.value == "<<" or not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in first:
                yield key, first[key.value]
            first[key.value] = key
    for child in children:
        yield from _repeated(child, seen)
