"""The documentation builds without a warning, and its generated pages say what the project is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.framework.startup import bootstrap_project

from site_reference import effect_of, groups_of_models, type_text
from support import PROJECT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as CI builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return folder


def test_an_equation_leads_to_the_line_of_its_function(site):
    html = (site / "equations/index.html").read_text(encoding="utf-8")
    link = re.search(r'href="([^"]*guidance\.py/)#(__codelineno-0-\d+)"><code>is_guided', html)
    assert link, "is_guided is not linked"
    page = (site / "equations" / link[1] / "index.html").resolve().read_text(encoding="utf-8")
    line = page.partition(f'name="{link[2]}"')[2].partition("\n")[0]
    assert "is_guided" in re.sub(r"<[^>]+>", "", line)


def test_a_parameter_has_type_default_unit_and_effect(site):
    html = (site / "reference/parameters/index.html").read_text(encoding="utf-8")
    row = re.split(r"</tr>", re.split(r"<tr>\s*<td><code>timeout</code>", html)[1])[0]
    row = f"<td><code>timeout</code>{row}"
    cells = [re.sub(r"<[^>]+>", "", cell).strip() for cell in row.split("<td>")[1:]]
    assert cells[0] == "timeout"
    assert "number, &gt; 0" in cells[1]
    assert cells[2:4] == ["60.0", "minutes"]
    assert cells[4].startswith("that a rank waits")


def test_every_parameter_of_every_model_has_an_effect():
    bootstrap_project(PROJECT)
    known = groups_of_models()
    assert {"StageOneParams", "CotrainingParams", "ComputeParams"} <= {model.__name__ for model in known}
    for model in known:
        for name, field in model.model_fields.items():
            assert effect_of(model, name)[1]
            assert "typing." not in type_text(field.annotation, field.metadata)


def test_the_site_loads_nothing_from_elsewhere(site):
    pages = [path for path in site.rglob("*.html") if "source" not in path.parts]
    assert len(pages) > 25
    for page in pages:
        html = re.sub(r'<link rel="canonical"[^>]*>', "", page.read_text(encoding="utf-8"))
        assert not re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', html), page


def test_commands_and_pipelines_are_listed(site):
    html = (site / "reference/commands/index.html").read_text(encoding="utf-8")
    for name in ("generate", "compare", "prune", "distill", "fetch_scorers"):
        assert f">{name}<" in html, name
