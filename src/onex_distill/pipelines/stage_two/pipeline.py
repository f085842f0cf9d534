"""reference generator -> reference images -> adversarial refinement of the student."""

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.stage_two import nodes

REFERENCES = ("reference_stage_one", "prompt_embeddings", "reference_images", "params:references")
SHARED = {"teacher", "recogniser", "runs", *(name for name in REFERENCES if not name.startswith("params:"))}


def create_references() -> Pipeline:
    """Reference images, shared by every adversarial run."""
    return Pipeline(
        [
            Node(
                nodes.sample_references,
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
            ),
            Node(
                nodes.decode_references,
                ["reference_latents", "teacher", "params:references", "params:compute", "runs"],
                "reference_images",
                name="decode_references",
            ),
        ]
    )


def create_refinement(namespace: str) -> Pipeline:
    """Stage two without a cache: ``<namespace>_stage_one`` to ``<namespace>_stage_two``."""
    refine = partial(nodes.refine_adversarially, name=f"{namespace}.refine_adversarially")
    template = Pipeline(
        [
            Node(nodes.check_discriminator, "params:stage_two", "backbone", name="check_discriminator"),
            Node(
                update_wrapper(refine, nodes.refine_adversarially),
                [
                    "stage_one",
                    "backbone",
                    "teacher",
                    "recogniser",
                    *REFERENCES,
                    "params:stage_two",
                    "params:compute",
                    "runs",
                ],
                ["stage_two", "stage_two_losses"],
                name="refine_adversarially",
            ),
        ]
    )
    inputs = {name: name for name in SHARED} | {"stage_one": f"{namespace}_stage_one"}
    outputs = {name: f"{namespace}_{name}" for name in ("backbone", "stage_two", "stage_two_losses")}
    return Pipeline(template, namespace=namespace, inputs=inputs, outputs=outputs, parameters={"references", "compute"})


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=stage_two``."""
    return create_references() + create_refinement("student")
