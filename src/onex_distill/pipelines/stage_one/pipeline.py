"""prompt embeddings -> distribution matching -> student, once a namespace."""

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.stage_one.nodes import draw_watched_grid, match_distribution

OUTPUTS = ("stage_one", "stage_one_best", "stage_one_losses", "stage_one_grid", "stage_one_grid_image")
SHARED_INPUTS = {"teacher", "prompt_embeddings", "empty_prompt_embeddings", "validation_latents", "runs"}


def create_distribution_matching(namespace: str, real_latents: str | None = None) -> Pipeline:
    """One run of stage one: outputs ``<namespace>_stage_one``, the best student, losses and watched grid.

    ``real_latents`` names the dataset that DMD2's adversarial term reads.
    """
    train = partial(match_distribution, name=f"{namespace}.match_distribution")
    draw = partial(draw_watched_grid, name=f"{namespace}.draw_watched_grid")
    real = [] if real_latents is None else [real_latents]
    template = Pipeline(
        [
            Node(
                update_wrapper(train, match_distribution),
                [
                    "teacher",
                    "prompt_embeddings",
                    "empty_prompt_embeddings",
                    "validation_latents",
                    "params:stage_one",
                    "params:compute",
                    "runs",
                    *real,
                ],
                ["stage_one", "stage_one_best", "stage_one_losses", "stage_one_grid"],
                name="match_distribution",
            ),
            Node(
                update_wrapper(draw, draw_watched_grid),
                ["teacher", "stage_one_grid", "params:stage_one", "params:compute", "runs"],
                "stage_one_grid_image",
                name="draw_watched_grid",
            ),
        ]
    )
    outputs = {name: f"{namespace}_{name}" for name in OUTPUTS}
    inputs = {*SHARED_INPUTS, *real}
    return Pipeline(template, namespace=namespace, inputs=inputs, outputs=outputs, parameters={"compute"})


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=stage_one``."""
    return create_distribution_matching("reference") + create_distribution_matching("student")
