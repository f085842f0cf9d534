"""A hook of mkdocs: links that leave ``docs`` lead to pages of the site.

The documents link to source files by their path in the repository, so that the same link works in an editor, on a
code host, and here, where each linked file becomes a page with numbered lines. A link whose text is the name of a
function or class (in backticks) leads to the line of its definition.
"""

import ast
import posixpath
import re
import shutil
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[1]
BUILT = PROJECT / "build"  # by kedro viz
PROJECT_PAGES = {
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
LANGUAGES = {".py": "python", ".yml": "yaml", ".yaml": "yaml", ".toml": "toml", ".md": "markdown", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the project's own documents, and one for every file outside ``docs`` that a page links to."""
    for name, uri in PROJECT_PAGES.items():
        files.append(File.generated(config, uri, content=(PROJECT / name).read_text(encoding="utf-8")))
    for path in sorted({path for file in files.documentation_pages() for path in linked_outside(file)}):
        files.append(File.generated(config, source_page(path), content=listing(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn every link that leaves ``docs`` into one of the site's own."""
    del config, files
    home = repository_path(page.file.src_uri)

    def rewritten(match: re.Match[str]) -> str:
        text, link = match.groups()
        target, _, anchor = link.partition("#")
        path = resolve(home, target)
        inside = path is not None and path.startswith("docs/") and home.startswith("docs/")
        if path is None or inside or not (PROJECT / path).is_file():
            return match.group()  # what leads nowhere is mkdocs' to report
        if path.startswith("docs/"):
            uri = path.removeprefix("docs/")
        elif path in PROJECT_PAGES:
            uri = PROJECT_PAGES[path]
        else:
            uri, anchor = source_page(path), line_anchor(path, text) or anchor
        relative = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"[{text}]({relative}{'#' + anchor if anchor else ''})"

    return LINK.sub(rewritten, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Put what ``kedro viz build`` has written beside the page on the lineage."""
    if (BUILT / "index.html").is_file():
        shutil.copytree(BUILT, Path(config.site_dir) / "lineage/graph", dirs_exist_ok=True)


def linked_outside(file: File) -> list[str]:
    """The files outside ``docs`` that a page links to, as paths in the repository."""
    home, found = repository_path(file.src_uri), []
    for _, link in LINK.findall(file.content_string):
        path = resolve(home, link.partition("#")[0])
        if path and not path.startswith("docs/") and path not in PROJECT_PAGES and (PROJECT / path).is_file():
            found.append(path)
    return found


def repository_path(uri: str) -> str:
    """Where the text of a page stands in the repository."""
    return next((name for name, page in PROJECT_PAGES.items() if page == uri), f"docs/{uri}")


def resolve(home: str, link: str) -> str | None:
    """The repository path that a link of a document leads to; None for another site or a heading of its own."""
    if not link or "://" in link or link.startswith(("mailto:", "/")):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(home), link))


def source_page(path: str) -> str:
    """The page of a source file."""
    return f"source/{path}.md"


def listing(path: str) -> str:
    """A source file as a page."""
    text = (PROJECT / path).read_text(encoding="utf-8")
    language = LANGUAGES.get(PurePosixPath(path).suffix, "text")
    name, fence = PurePosixPath(path).name, "`" * 6
    head = f"---\nsearch: {{exclude: true}}\n---\n\n# {name}\n\n`{path}`\n\n"
    return f'{head}{fence}{language} linenums="1"\n{text}{fence}\n'


def line_anchor(path: str, text: str) -> str | None:
    """The anchor of the line that defines what a link names in backticks; None for other links."""
    line = definition_line(PROJECT / path, text.strip("`")) if text.startswith("`") and path.endswith(".py") else None
    return f"__codelineno-0-{line}" if line else None


def definition_line(path: Path, name: str) -> int | None:
    """The line of a function, class or method (``Class.method``) of a module, or None."""
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    line: int | None = None
    for part in name.removesuffix("()").split("."):
        kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
        found = next((item for item in body if isinstance(item, kinds) and item.name == part), None)
        if found is None:
            return None
        body, line = found.body, found.lineno
    return line
