"""Parts of every pipeline that trains, samples or scores; a run makes them anew, so that they are never of before."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node

nodes = LazyModule("onex_distill.pipelines.shared.nodes")


def create_conditions() -> Pipeline:
    """What every training and sampling stands on."""
    return Pipeline(
        [
            Node(
                nodes.gather_conditions,
                ["teacher", "prompt_embeddings", "empty_prompt_embeddings"],
                "conditions",
                name="gather_conditions",
            )
        ]
    )


def create_sampling_inputs() -> Pipeline:
    """What all samplings read."""
    return create_conditions() + Pipeline(
        [
            Node(
                nodes.gather_sampling_inputs,
                ["conditions", "params:evaluation"],
                "sampling_inputs",
                name="gather_sampling_inputs",
            )
        ]
    )


def create_adversarial_inputs() -> Pipeline:
    """What every adversarial training reads."""
    return create_conditions() + Pipeline(
        [
            Node(
                nodes.gather_adversarial_inputs,
                ["conditions", "recogniser", "reference.stage_one", "reference_images", "params:references"],
                "adversarial_inputs",
                name="gather_adversarial_inputs",
            )
        ]
    )


def extract_node(name: str) -> Node:
    """Features of ``<name>_samples``."""
    inputs = [f"{name}_samples", "params:scorers", "params:compute", "runs"]
    return Node(nodes.extract, inputs, f"{name}_features", name=f"extract_{name}_features")
