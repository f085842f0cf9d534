"""Commands that run nothing start without torch."""

import json
import subprocess
import sys

import pytest

from support import PROJECT

SETUP = """
import json, sys, time
from pathlib import Path
from kedro.framework.startup import bootstrap_project
bootstrap_project(Path.cwd())
"""
REGISTRY = "from kedro.framework.project import pipelines; assert 'distill' in dict(pipelines)"
CATALOG = """
from kedro.framework.session import KedroSession
with KedroSession.create(env="sd3_medium") as session:
    assert "{namespace}.stage_one" in session.load_context().catalog.config_resolver.list_patterns()
"""
VIZ = """
from kedro_viz.data_access import data_access_manager
from kedro_viz.integrations.kedro.data_loader import load_data
from kedro_viz.server import populate_data
populate_data(data_access_manager, *load_data(Path.cwd()))
assert data_access_manager.nodes.as_list()
"""
END = "print(json.dumps([time.process_time(), [name for name in ('torch', 'diffusers') if name in sys.modules]]))"


@pytest.mark.parametrize("command", [REGISTRY, CATALOG, VIZ], ids=["registry", "catalog", "viz"])
def test_what_runs_nothing_imports_no_torch(command):
    code = "\n".join([SETUP, command, END])
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    seconds, imported = json.loads(result.stdout.splitlines()[-1])
    assert imported == []
    assert seconds < 4  # of the processor; 5 to 11 with torch, half of this on a quiet machine
