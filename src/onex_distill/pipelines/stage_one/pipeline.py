"""prompt embeddings -> distribution matching -> student, once per namespace."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node
from onex_distill.pipelines.shared import create_conditions

nodes = LazyModule("onex_distill.pipelines.stage_one.nodes")

OUTPUTS = ["stage_one", "stage_one_best", "stage_one_losses", "stage_one_grid"]


def create_distribution_matching(namespace: str, real_latents: str | None = None) -> Pipeline:
    """One run of stage one: outputs ``<namespace>.stage_one``, the best student, losses and watched grid.

    ``real_latents`` names the dataset that DMD2's adversarial term reads.
    """
    real = [] if real_latents is None else [real_latents]
    match = nodes.match_distribution_with_gan if real else nodes.match_distribution
    return _create(namespace, Node(match, _inputs(*real), OUTPUTS, name="match_distribution"), real)


def create_student() -> Pipeline:
    """The student's run, with the teacher's trajectories for its regression."""
    sampling = Node(
        nodes.sample_trajectories,
        ["conditions", "params:stage_one", "params:teacher_sampling", "params:compute", "runs"],
        "trajectories",
        name="sample_trajectories",
    )
    match = nodes.match_distribution_beside_regression
    return _create("student", Node(match, _inputs("trajectories"), OUTPUTS, name="match_distribution"), [], sampling)


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=stage_one``."""
    return create_distribution_matching("reference") + create_student()


def _inputs(*further: str) -> list[str]:
    """What every run of stage one reads, with what one of them reads besides."""
    return ["conditions", "validation_latents", *further, "params:stage_one", "params:compute", "runs"]


def _create(namespace: str, match: Node, shared: list[str], *before: Node) -> Pipeline:
    """A run and its grid in a namespace, which does not hold what is ``shared``."""
    grid = Node(
        nodes.draw_watched_grid,
        ["teacher", "stage_one_grid", "params:stage_one", "params:compute", "runs"],
        "stage_one_grid_image",
        name="draw_watched_grid",
    )
    outside = {"teacher", "conditions", "validation_latents", *shared, "runs"}
    inner = Pipeline([*before, match, grid])
    parameters = {"compute", "teacher_sampling"} if before else {"compute"}
    return create_conditions() + Pipeline(inner, namespace=namespace, inputs=outside, parameters=parameters)
