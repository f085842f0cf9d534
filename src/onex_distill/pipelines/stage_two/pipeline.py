"""reference generator -> reference images -> adversarial refinement of the student."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node
from onex_distill.pipelines.shared import create_adversarial_inputs, create_conditions

nodes = LazyModule("onex_distill.pipelines.stage_two.nodes")


def create_references() -> Pipeline:
    """Reference images, shared by every adversarial run."""
    settings = ["params:references", "params:compute", "runs"]
    return create_conditions() + Pipeline(
        [
            Node(nodes.plan_references, ["prompts", "params:references"], "reference_plan", name="plan_references"),
            Node(
                nodes.sample_references,
                ["reference.stage_one", "conditions", "reference_plan", *settings],
                "reference_latents",
                name="sample_references",
            ),
            Node(
                nodes.decode_references,
                ["reference_latents", "teacher", *settings],
                "reference_images",
                name="decode_references",
            ),
        ]
    )


def create_refinement(namespace: str) -> Pipeline:
    """Stage two without a cache: ``<namespace>.stage_one`` to ``<namespace>.stage_two``."""
    template = Pipeline(
        [
            Node(
                nodes.refine_adversarially,
                ["stage_one", "adversarial_inputs", "params:stage_two", "params:compute", "runs"],
                ["stage_two", "stage_two_losses"],
                name="refine_adversarially",
            ),
        ]
    )
    # stage one of the namespace is not renamed with the rest, or Kedro would ask for it among the inputs of this one
    shared = {"stage_one": f"{namespace}.stage_one", "adversarial_inputs": "adversarial_inputs", "runs": "runs"}
    return create_adversarial_inputs() + Pipeline(template, namespace=namespace, inputs=shared, parameters={"compute"})


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=stage_two``."""
    return create_references() + create_refinement("student")
