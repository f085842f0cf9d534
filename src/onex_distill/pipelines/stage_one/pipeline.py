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
    settings = ["params:stage_one", "params:compute", "runs"]
    real = [] if real_latents is None else [real_latents]
    shared = {"teacher", "conditions", "validation_latents", *real, "runs"}
    template = Pipeline(
        [
            Node(
                nodes.match_distribution_with_gan if real else nodes.match_distribution,
                ["conditions", "validation_latents", *real, *settings],
                OUTPUTS,
                name="match_distribution",
            ),
            Node(
                nodes.draw_watched_grid,
                ["teacher", "stage_one_grid", *settings],
                "stage_one_grid_image",
                name="draw_watched_grid",
            ),
        ]
    )
    return create_conditions() + Pipeline(template, namespace=namespace, inputs=shared, parameters={"compute"})


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=stage_one``."""
    return create_distribution_matching("reference") + create_distribution_matching("student")
