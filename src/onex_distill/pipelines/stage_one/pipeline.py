"""prompt embeddings -> distribution matching -> student, once a namespace."""

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.stage_one.nodes import match_distribution

SHARED_INPUTS = {"teacher", "prompt_embeddings", "empty_prompt_embeddings", "runs"}


def create_distribution_matching(namespace: str) -> Pipeline:
    """One run of stage one: outputs ``<namespace>_stage_one`` and ``<namespace>_stage_one_losses``."""
    train = partial(match_distribution, name=f"{namespace}.match_distribution")
    template = Pipeline(
        [
            Node(
                update_wrapper(train, match_distribution),
                [
                    "teacher",
                    "prompt_embeddings",
                    "empty_prompt_embeddings",
                    "params:stage_one",
                    "params:compute",
                    "runs",
                ],
                ["stage_one", "stage_one_losses"],
                name="match_distribution",
            )
        ]
    )
    outputs = {name: f"{namespace}_{name}" for name in ("stage_one", "stage_one_losses")}
    return Pipeline(template, namespace=namespace, inputs=SHARED_INPUTS, outputs=outputs, parameters={"compute"})


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=stage_one``."""
    return create_distribution_matching("reference") + create_distribution_matching("student")
