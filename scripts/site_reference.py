"""A hook of mkdocs: the reference of parameters, of commands and of pipelines, made from the project itself.

What a parameter accepts and what it is in ``conf/base`` comes from the models and from conf; units and effects from
``scripts/parameters.yml``.
"""

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import click
import yaml
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from onex_distill.cli import cli
from onex_distill.parameters import Params

PROJECT = Path(__file__).parents[1]
EFFECTS: dict[str, dict[str, tuple[str | None, str]]] = yaml.safe_load(
    (PROJECT / "scripts/parameters.yml").read_text(encoding="utf-8")
)
MISSING = object()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    bootstrap_project(PROJECT)
    for uri, content in (("reference/parameters.md", parameters()), ("reference/commands.md", commands())):
        files.append(File.generated(config, uri, content=content))
    return files


def parameters() -> str:
    """A section for every model of parameters: where conf uses it, and a row per parameter."""
    known, conf = groups_of_models(), base_parameters()
    parts = [
        "# Parameters",
        "Every group of parameters, as `conf/base` has it. The type says what is accepted; anything else, a mistyped "
        "name or a value out of range ends a run before its first node, in one line. On the command line a parameter "
        "is set by its dotted name: `kedro run --params=student.stage_one.guidance.alpha=0.8`.",
    ]
    for model, names in sorted(known.items(), key=lambda item: (not item[1], item[1][:1], item[0].__name__)):
        parts.append(f"## {model.__name__}")
        own = model.__dict__.get("__doc__") or inspect.getdoc(model) or ""
        parts.append(inspect.cleandoc(own).replace("``", "`"))
        if names:
            parts.append("In conf: " + ", ".join(f"`{name}`" for name in names) + ".")
        rows = ["| parameter | type | default | unit | effect |", "|---|---|---|---|---|"]
        group = value_of(conf, names[0]) if names else MISSING
        for name, field in model.model_fields.items():
            unit, effect = effect_of(model, name)
            default = shown(group.get(name, MISSING)) if isinstance(group, dict) else ""
            cells = (f"`{name}`", type_text(field.annotation, field.metadata), default, unit or "", effect)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def groups_of_models() -> dict[type[Params], list[str]]:
    """Every model that a node takes or that is inside one, with the groups of parameters that it reads."""
    known: dict[type[Params], list[str]] = {}
    for pipeline in dict(pipelines).values():
        for node in pipeline.nodes:
            hints, bound = get_type_hints(node.func), inspect.signature(node.func)
            inputs = node._inputs
            arguments = (bound.bind(**inputs) if isinstance(inputs, dict) else bound.bind(*node.inputs)).arguments
            for argument, name in arguments.items():
                if isinstance(name, str) and name.startswith("params:"):
                    for model in models_in(hints.get(argument)):
                        include(model, known)
                        known[model].append(name.removeprefix("params:"))
    return {model: sorted(set(names)) for model, names in known.items()}


def models_in(hint: Any) -> Iterator[type[Params]]:
    """The models of parameters that a type names."""
    if inspect.isclass(hint) and issubclass(hint, Params):
        yield hint
    for argument in get_args(hint):
        yield from models_in(argument)


def include(model: type[Params], known: dict[type[Params], list[str]]) -> None:
    """Add a model and those of its fields."""
    if model in known:
        return
    known[model] = []
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            include(inner, known)


def effect_of(model: type[Params], name: str) -> tuple[str | None, str]:
    """Unit and effect of a parameter. Raises ValueError where nobody has written them down."""
    for owner in (*(base.__name__ for base in model.__mro__), "common"):
        group = EFFECTS.get(owner, {})
        entry = group.get(name, group.get("*"))
        if entry:
            unit, effect = entry
            return unit, effect
    if description := model.model_fields[name].description:
        return None, description
    raise ValueError(f"scripts/parameters.yml says nothing of {model.__name__}.{name}; add its unit and effect there")


def type_text(annotation: Any, metadata: list[Any]) -> str:
    """A type as a reader would write it, with its limits."""
    limits = [text for item in metadata for text in limit_texts(item)]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        text = "null"
    elif str(origin) == "<class 'types.UnionType'>" or origin is Union:
        text = " or ".join(dict.fromkeys(type_text(item, []) for item in arguments))
    elif str(origin) == "typing.Literal":
        text = ", ".join(f"`{item}`" for item in arguments)
    elif hasattr(annotation, "__metadata__"):
        text = type_text(annotation.__origin__, list(annotation.__metadata__))
    elif origin in (tuple, list):
        inner = list(dict.fromkeys(type_text(item, []) for item in arguments if item is not Ellipsis))
        text = f"list of {', '.join(inner)}" if inner else "list"
    elif origin is dict or str(origin) == "<class 'collections.abc.Mapping'>":
        text = f"mapping to {type_text(arguments[1], [])}" if arguments else "mapping"
    elif inspect.isclass(annotation) and issubclass(annotation, Params):
        text = f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    else:
        text = {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
            getattr(annotation, "__name__", ""), getattr(annotation, "__name__", str(annotation))
        )
    return f"{text}, {' and '.join(limits)}" if limits else text


def limit_texts(item: Any) -> Iterator[str]:
    """The limits that one piece of a field's metadata sets."""
    for nested in getattr(item, "metadata", None) or []:
        yield from limit_texts(nested)
    for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
        value = getattr(item, name, None)
        if value is not None:
            yield f"{sign} {value if value < 2**40 else '2^62'}"


def base_parameters() -> dict[str, Any]:
    """The parameters of ``conf/base``."""
    with KedroSession.create(project_path=PROJECT, env="base") as session:
        context: Any = session.load_context()  # type: ignore[attr-defined]
        return dict(context.config_loader["parameters"])


def value_of(tree: Any, dotted: str) -> Any:
    """The group of a dotted name."""
    for part in dotted.split("."):
        tree = tree.get(part, MISSING) if isinstance(tree, dict) else MISSING
    return tree


def shown(value: Any) -> str:
    """A value of conf for a table cell; groups and long lists are links elsewhere or cut."""
    if value is MISSING or isinstance(value, dict):
        return ""
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else str(value)
    return f"`{text}`" if len(str(text)) <= 40 else f"`{str(text)[:36]} ...`"


def commands() -> str:
    """The project's own commands with their options, and every pipeline with what it needs and leaves."""
    parts = [
        "# Commands and pipelines",
        "Every command works as `kedro COMMAND` inside the project, and as `onex-distill COMMAND` anywhere "
        "([as a package](../running.md#as-a-package)).",
    ]
    parts += [command_section(name, command) for name, command in sorted(cli.commands.items())]
    rows = ["| `kedro run --pipelines=` | nodes | reads | leaves |", "|---|---|---|---|"]
    hidden = ("runs", "parameters")
    for name, pipeline in sorted(dict(pipelines).items()):
        inputs = sorted(each for each in pipeline.inputs() if ":" not in each and each not in hidden)
        if name != "__default__":
            rows.append(
                f"| `{name}` | {len(pipeline.nodes)} | {few(inputs or ['parameters'])} | {few(pipeline.outputs())} |"
            )
    return "\n\n".join([*parts, "## Pipelines", "\n".join(rows)]) + "\n"


def command_section(name: str, command: click.Command) -> str:
    """One command: what it does, and its options."""
    context = click.Context(command, info_name=f"onex-distill {name}")
    rows = ["| option | effect |", "|---|---|"]
    for record in (option.get_help_record(context) for option in command.params):
        if record:
            rows.append("| `{}` | {} |".format(*(text.replace("|", ", ") for text in record)))
    usage = command.get_usage(context).removeprefix("Usage: ")
    help_text = inspect.cleandoc(command.help or "").split("\f")[0].strip()
    return f"## {name}\n\n{help_text}\n\n```text\n{usage}\n```\n\n" + "\n".join(rows)


def few(names: Iterable[str], most: int = 8) -> str:
    """The first names, and how many more."""
    listed = sorted(names)
    more = f", and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(f"`{name}`" for name in listed[:most]) + more
