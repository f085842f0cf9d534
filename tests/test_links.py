"""Links in the documents lead somewhere."""

import re

import pytest

from support import PROJECT

DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), PROJECT / "data/01_raw/README.md"])
GENERATED = {PROJECT / "docs/reference" / name for name in ("parameters.md", "commands.md")}  # with the site
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:src|conf|docs|tests|benchmarks|pipelines|distill|cache|engine|models)/[\w/]+\.\w+)`")


def anchors(text: str) -> set[str]:
    """What the headings of a document are linked by."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_links_and_named_files_are_there(path):
    text = path.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        if linked.resolve() in GENERATED:
            continue
        assert linked.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(linked.read_text(encoding="utf-8")), f"{target}: no such heading"
    for name in NAMED.findall(text):
        assert (PROJECT / name).exists() or (PROJECT / "src/onex_distill" / name).exists(), f"{name} is not there"
