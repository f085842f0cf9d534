"""What the documents say, for tests that hold it against the project."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from support import PROJECT

DOCUMENTS = sorted([PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("docs/**/*.md")])
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`((?:kedro|onex-distill|python (?:benchmarks|scripts)/\S+|python -m onex_distill\S*) [^`]+)`")
PROGRAMS = ("kedro", "onex-distill", "python")


class Command(NamedTuple):
    """A command of a document."""

    document: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {' '.join(self.words)}"


def commands() -> list[Command]:
    """Every command of the project in every document, in blocks and in the running text; none twice per document."""
    found: dict[Command, None] = {}
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
        lines += [line.replace("\n", " ") for line in INLINE.findall(text)]
        for line in lines:
            for part in re.split(r"&&|;(?=\s)", line):
                words = shlex.split(part, comments=True)
                if words and Path(words[0]).name in PROGRAMS:
                    name = path.relative_to(PROJECT).as_posix()
                    found[Command(name, (Path(words[0]).name, *words[1:]))] = None
    return list(found)


def tutorial_steps() -> list[tuple[str, str]]:
    """What the tutorial asks for, in order: ("run", commands) and ("file NAME", content)."""
    text = (PROJECT / "docs/tutorial.md").read_text(encoding="utf-8")
    return re.findall(r"<!-- tutorial: (run|file \S+) -->\n```\w+\n(.*?)```", text, re.DOTALL)
