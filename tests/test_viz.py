"""What kedro viz shows: code of every node, layers from left to right, and a preview of every artefact."""

import inspect
from collections.abc import Iterator

import pytest
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project
from kedro_viz.api.rest.responses.nodes import get_node_metadata_response
from kedro_viz.api.rest.responses.pipelines import get_pipeline_response
from kedro_viz.data_access import data_access_manager
from kedro_viz.data_access.managers import DataAccessManager
from kedro_viz.integrations.kedro.data_loader import load_data
from kedro_viz.models.flowchart.nodes import DataNode, TaskNode
from kedro_viz.server import populate_data

from support import PROJECT

LAYERS = (
    "raw",
    "teacher",
    "precompute",
    "stages",
    "cache",
    "export",
    "samples",
    "features",
    "metrics",
    "report",
)
PREVIEWS = {"TablePreview", "ImagePreview", "PlotlyPreview", "JSONPreview", "HTMLPreview"}


@pytest.fixture(scope="module")
def viz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataAccessManager]:
    """What the server of kedro viz knows of the project, with a data folder without anything in it."""
    bootstrap_project(PROJECT)
    folder = str(tmp_path_factory.mktemp("data"))
    populate_data(data_access_manager, *load_data(PROJECT, extra_params={"data": folder}))
    yield data_access_manager
    data_access_manager.reset_fields()


def kind_of(node: DataNode) -> str:
    """The type of preview, read as kedro viz reads it."""
    annotation = inspect.signature(node.kedro_obj.preview).return_annotation
    return getattr(annotation, "__name__", str(annotation))


def layer_of(viz: DataAccessManager, name: str) -> int:
    layer = viz.catalog.get_layer_for_dataset(name)
    assert layer in LAYERS, f"{name} is in no layer"
    return LAYERS.index(layer)


def test_every_node_of_every_pipeline_shows_its_code(viz):
    tasks = [node for node in viz.nodes.as_list() if isinstance(node, TaskNode)]
    assert {node.full_name for node in tasks} == {n.name for p in dict(pipelines).values() for n in p.nodes}
    for node in tasks:
        response = get_node_metadata_response(node.id)
        function = node.kedro_obj.func.__name__
        assert f"def {function}(" in response.code, node.full_name
        assert response.filepath.endswith(".py")


def test_no_edge_of_any_pipeline_runs_to_an_earlier_layer(viz):
    for name, pipeline in dict(pipelines).items():
        for node in pipeline.nodes:
            inputs = [each for each in node.inputs if not each.startswith("params:") and each != "parameters"]
            after = max((layer_of(viz, each) for each in inputs), default=0)
            for output in node.outputs:
                assert layer_of(viz, output) >= after, f"{name}: {node.name} -> {output}"


def test_layers_are_drawn_in_every_pipeline(viz):
    for pipeline in viz.registered_pipelines.as_list():
        layers = get_pipeline_response(pipeline.id).layers  # with the edges of collapsed namespaces
        assert layers, f"{pipeline.id}: a circle of layers"
        assert set(layers) <= set(LAYERS)


def test_every_artefact_has_a_preview(viz):
    data = [node for node in viz.nodes.as_list() if isinstance(node, DataNode)]
    assert len(data) > 100
    for node in data:
        assert kind_of(node) in PREVIEWS, node.name


def test_losses_are_plots_and_latents_are_images(viz):
    kinds = {node.name: kind_of(node) for node in viz.nodes.as_list() if isinstance(node, DataNode)}
    losses = {name for name in kinds if name.endswith("_losses") and name != "all_losses"}
    assert len(losses) > 15
    assert {kinds[name] for name in losses} == {"PlotlyPreview"}
    images = {name for name in kinds if name.endswith(("_latents", "_samples", "_images", "_grid"))}
    assert {kinds[name] for name in images - {"gathered_samples", "all_samples"}} == {"ImagePreview"}
    models = ("teacher", "student.stage_one", "fractional_167.compensation", "student_pipeline", "report")
    assert {kinds[name] for name in models} == {"HTMLPreview"}
