"""reference generator -> reference latents -> adversarial refinement of the student."""

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.stage_two.nodes import refine_adversarially, sample_references


def create_references() -> Pipeline:
    """Reference latents, shared by every adversarial run."""
    return Pipeline(
        [
            Node(
                sample_references,
                [
                    "reference_stage_one",
                    "teacher",
                    "prompts",
                    "prompt_embeddings",
                    "empty_prompt_embeddings",
                    "params:references",
                    "params:compute",
                    "runs",
                ],
                "reference_latents",
                name="sample_references",
            )
        ]
    )


def create_refinement(namespace: str) -> Pipeline:
    """Stage two without a cache: ``<namespace>_stage_one`` to ``<namespace>_stage_two``."""
    refine = partial(refine_adversarially, name=f"{namespace}.refine_adversarially")
    template = Pipeline(
        [
            Node(
                update_wrapper(refine, refine_adversarially),
                [
                    "stage_one",
                    "teacher",
                    "recogniser",
                    "prompt_embeddings",
                    "reference_latents",
                    "params:stage_two",
                    "params:compute",
                    "runs",
                ],
                ["stage_two", "stage_two_losses"],
                name="refine_adversarially",
            )
        ]
    )
    shared = ("teacher", "recogniser", "prompt_embeddings", "reference_latents", "runs")
    inputs = {name: name for name in shared} | {"stage_one": f"{namespace}_stage_one"}
    outputs = {name: f"{namespace}_{name}" for name in ("stage_two", "stage_two_losses")}
    return Pipeline(template, namespace=namespace, inputs=inputs, outputs=outputs, parameters={"compute"})


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=stage_two``."""
    return create_references() + create_refinement("student")
