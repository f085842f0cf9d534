"""The registry and the catalog fit together."""

import pytest
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from support import PROJECT

NAMES = (
    "teacher",
    "precompute",
    "stage_one",
    "stage_two",
    "cache_cotraining",
    "evaluation",
    "distill",
    "baselines",
    "ablation",
    "generate",
    "reuse",
    "pareto",
    "recovery",
)


@pytest.mark.parametrize("env", ["base", "test", "sd3_medium", "sd35_large"])
def test_every_dataset_of_every_pipeline_is_in_the_catalog(env):
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env=env) as session:
        catalog = session.load_context().catalog
        for name in NAMES:
            for dataset in pipelines[name].datasets():
                assert catalog.get(dataset) is not None, f"{name}: {dataset}"


def test_a_bare_run_is_distill():
    bootstrap_project(PROJECT)
    assert {node.name for node in pipelines["__default__"].nodes} == {node.name for node in pipelines["distill"].nodes}


def test_distill_needs_nothing_but_the_committed_inputs():
    bootstrap_project(PROJECT)
    free = {name for name in pipelines["distill"].inputs() if not name.startswith("params:")}
    assert free == {"captions", "teacher", "evaluator", "recogniser", "runs"}
