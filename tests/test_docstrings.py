"""Functions with four arguments or more describe them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
MANY = 4
RETURNS_NOTHING = ("None", "NoReturn", "Never")
GENERATORS = ("Iterator", "Generator", "AsyncIterator")


def arguments(function: ast.FunctionDef) -> list[str]:
    """Names as a docstring has them, without self and cls."""
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args) if each.arg not in ("self", "cls")]
    names += [f"*{given.vararg.arg}"] if given.vararg else []
    names += [each.arg for each in given.kwonlyargs]
    return names + ([f"**{given.kwarg.arg}"] if given.kwarg else [])


def functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """Public functions and methods, not those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from functions(child)
        elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield child


def section(docstring: str, title: str) -> str:
    """The indented text below a title, empty where it is missing."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", docstring, flags=re.MULTILINE)
    return found.group(1) if found else ""


def described(docstring: str) -> list[str]:
    """The names in ``Args:``."""
    return re.findall(r"^    (\*{0,2}\w+): \S", section(docstring, "Args"), flags=re.MULTILINE)


FOUND = [
    pytest.param(function, id=f"{path.relative_to(SOURCE)}:{function.name}")
    for path in sorted(SOURCE.rglob("*.py"))
    for function in functions(ast.parse(path.read_text(encoding="utf-8")))
    if len(arguments(function)) >= MANY
]


@pytest.mark.parametrize("function", FOUND)
def test_docstring_names_every_argument_and_what_is_returned(function: ast.FunctionDef) -> None:
    docstring = ast.get_docstring(function) or ""
    assert described(docstring) == arguments(function)
    returned = ast.unparse(function.returns) if function.returns else "None"
    if returned not in RETURNS_NOTHING:
        title = "Yields" if returned.startswith(GENERATORS) else "Returns"
        assert section(docstring, title).strip()


def test_functions_are_found() -> None:
    assert len(FOUND) > 100
