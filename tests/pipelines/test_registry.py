"""The registry and the catalog fit together."""

import ast
import inspect
import textwrap

import pytest
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.pipeline import Node

from onex_distill.evaluation.families import NAMES as METRIC_NAMES
from onex_distill.evaluation.measures import METRICS
from onex_distill.hooks import RunFoldersHook
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
    "score",
    "calibrate",
    "recovery",
    "fetch_scorers",
    "convert_scorers",
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
    assert free == {"captions", "evaluation_captions", "parameters", "teacher", "recogniser", "runs"}


@pytest.mark.parametrize("name", NAMES)
def test_every_node_finds_its_function_and_may_call_it(name):
    bootstrap_project(PROJECT)
    for node in pipelines[name].nodes:
        if isinstance(node._inputs, dict):
            inspect.signature(node.func).bind(**node._inputs)
        else:
            inspect.signature(node.func).bind(*node.inputs)


@pytest.mark.parametrize("name", NAMES)
def test_nodes_are_plain_functions_of_few_inputs(name):
    bootstrap_project(PROJECT)
    for node in pipelines[name].nodes:
        assert len(node.inputs) <= 7, f"{node.name}: {node.inputs}"
        assert inspect.isfunction(node.func), node.name
        assert "name" not in inspect.signature(node.func).parameters, node.name


@pytest.mark.parametrize("name", NAMES)
def test_an_input_that_only_orders_nodes_says_what_it_waits_for(name):
    bootstrap_project(PROJECT)
    for node in pipelines[name].nodes:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(node.func))))
        read = {part.id for part in ast.walk(tree) if isinstance(part, ast.Name)}
        arguments = inspect.signature(node.func).bind(*node.inputs).arguments if isinstance(node._inputs, list) else {}
        waits = {argument: dataset for argument, dataset in arguments.items() if argument not in read}
        assert all(argument.startswith("_after_") for argument in waits), f"{node.name}: {waits}"
        assert not any(argument.startswith("_") for argument in set(arguments) - set(waits)), node.name
        for argument, dataset in waits.items():
            assert argument == f"_after_{dataset.rpartition('.')[2]}", node.name


@pytest.mark.parametrize("env", ["base", "test", "sd3_medium", "sd35_large"])
def test_every_entry_of_the_catalog_has_a_layer(env):
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env=env) as session:
        catalog = session.load_context().config_loader["catalog"]
    for name, entry in catalog.items():
        assert name.startswith("_") or entry["metadata"]["kedro-viz"]["layer"], name


def test_a_node_finds_the_folder_of_its_own_name(tmp_path):
    hook = RunFoldersHook()
    node = Node(lambda runs: None, "runs", None, name="train", namespace="student")
    assert hook.before_node_run(node, {"runs": tmp_path}) == {"runs": tmp_path / "student.train"}
    assert hook.before_node_run(node, {"other": 1}) == {}


def test_the_graph_has_a_node_for_every_metric_in_the_order_of_the_table():
    assert tuple(METRICS) == METRIC_NAMES
