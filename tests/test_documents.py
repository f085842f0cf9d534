"""Commands, equations and messages that the documents name are those of the project."""

import ast
import re
from functools import cache

import click
import pytest
from kedro.framework.cli.cli import KedroCLI
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from documents import Command, commands
from onex_distill.cli import cli
from onex_distill.hooks.parameters import KnownNamesHook
from site_links import LINK, definition_line
from support import PROJECT

PLACEHOLDERS = {"NAME", "VERSION", "TEXT", "TEXT...", "COMMAND"}
SAMPLE_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}\.\d{2}\.\d{2}\.\d{3}Z")


@cache
def kedro_cli() -> click.Command:
    bootstrap_project(PROJECT)
    return KedroCLI(PROJECT)


def parsed(command: click.Command, words: list[str], name: str) -> click.Context:
    """The context of the last command of a line; raises click's UsageError for an unknown command or option."""
    context = command.make_context(name, list(words), resilient_parsing=False)
    while isinstance(context.command, click.Group | click.CommandCollection):
        rest = [*context._protected_args, *context.args]
        _, chosen, rest = context.command.resolve_command(context, rest)
        assert chosen is not None, rest
        context = chosen.make_context(chosen.name, rest, parent=context)
    return context


def environments() -> set[str]:
    return {path.name for path in (PROJECT / "conf").iterdir() if path.is_dir()} | {"mine"}


def check_run(context: click.Context) -> None:
    """Pipelines, nodes, datasets and parameters of a run."""
    options = context.params
    names = options.get("pipelines") or options.get("pipeline") or "__default__"
    names = names.split(",") if isinstance(names, str) else list(names)
    known = dict(pipelines)
    assert set(names) <= set(known) | PLACEHOLDERS, names
    nodes = {node.name for name in names if name in known for node in known[name].nodes}
    everywhere = {node.name for pipeline in known.values() for node in pipeline.nodes}
    for option in ("from_nodes", "to_nodes", "node_names", "nodes"):
        wanted = set(options.get(option) or ())
        assert wanted <= (everywhere if option in ("node_names", "nodes") else nodes) | PLACEHOLDERS, wanted
    datasets = {name for pipeline in known.values() for name in pipeline.datasets()}
    assert set(options.get("load_versions") or {}) <= datasets | PLACEHOLDERS


def check_params(context: click.Context) -> None:
    """Parameters that are typed are known, by the project's own check, and their values are accepted."""
    given = {name: value for name, value in (context.params.get("params") or {}).items() if name not in ("data", "raw")}
    env = context.params.get("env") or "base"
    assert env in environments(), env
    if not given:
        return
    with KedroSession.create(
        project_path=PROJECT, env=env if env != "mine" else "base", runtime_params=given
    ) as session:
        kedro = session.load_context()
        hook = KnownNamesHook()
        hook.after_context_created(kedro)
        hook.before_pipeline_run({"runner": "SequentialRunner", "runtime_params": given})
        assert kedro.params


@pytest.mark.parametrize("command", commands(), ids=str)
def test_every_command_is_one_that_the_project_takes(command: Command):
    program, *words = command.words
    if set(words) & {"..."}:
        pytest.skip("a pattern, no command")
    if program == "python":
        assert words[0] in ("-m", "-c") or (PROJECT / words[0]).is_file(), words
        if words[0] == "-m" and words[1].startswith("onex_distill."):
            assert (PROJECT / "src" / (words[1].replace(".", "/") + ".py")).is_file()
        if words[0].startswith("benchmarks/"):
            options = set(re.findall(r"--[\w-]+", (PROJECT / words[0]).read_text(encoding="utf-8")))
            assert {word for word in words[1:] if word.startswith("--")} <= options
        return
    bootstrap_project(PROJECT)
    words = [word.replace("PROJECT", str(PROJECT)) for word in words]
    if "--help" in words:
        words.remove("--help")
    try:
        context = parsed(kedro_cli() if program == "kedro" else cli, words, program)
    except click.MissingParameter:
        assert len(words) == 1  # a command that is only named
        return
    if context.command.name == "run":
        check_run(context)
    if "params" in context.params:
        check_params(context)


def equations() -> list[tuple[str, str]]:
    text = (PROJECT / "docs/equations.md").read_text(encoding="utf-8")
    return [(name.strip("`"), link) for name, link in LINK.findall(text) if name.startswith("`")]


@pytest.mark.parametrize(("name", "link"), equations())
def test_every_equation_leads_to_a_function_that_is_there(name, link):
    path = (PROJECT / "docs" / link).resolve()
    line = definition_line(path, name)
    assert line is not None
    assert name.split(".")[-1] in path.read_text(encoding="utf-8").splitlines()[line - 1]


@cache
def constants() -> str:
    """Every text that the source holds, constant parts of f-strings among them, a line each."""
    found = []
    for path in sorted((PROJECT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def messages() -> list[str]:
    text = (PROJECT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE)


@pytest.mark.parametrize("message", messages())
def test_every_message_is_one_of_the_project(message):
    for part in message.split("..."):
        assert part.strip() in constants(), part
