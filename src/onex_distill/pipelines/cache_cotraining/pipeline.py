"""student -> cached inference path -> student with compensation -> exported pipeline."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node
from onex_distill.pipelines.shared import create_adversarial_inputs

nodes = LazyModule("onex_distill.pipelines.cache_cotraining.nodes")


def create_start() -> Pipeline:
    """Choose the student that every co-training starts from."""
    return Pipeline(
        [
            Node(
                nodes.choose_start,
                ["student.stage_one", "student.stage_two", "params:cotraining_start"],
                "cotraining_start",
                name="choose_start",
            )
        ]
    )


def create_cotraining(namespace: str) -> Pipeline:
    """One co-training: ``cotraining_start`` to ``<namespace>.student`` and ``<namespace>.compensation``."""
    template = Pipeline(
        [
            Node(
                nodes.cotrain_cache,
                ["cotraining_start", "adversarial_inputs", "params:cotraining", "params:compute", "runs"],
                ["student", "compensation", "cotraining_losses"],
                name="cotrain_cache",
            ),
        ]
    )
    shared = {"cotraining_start", "adversarial_inputs", "runs"}
    return create_adversarial_inputs() + Pipeline(template, namespace=namespace, inputs=shared, parameters={"compute"})


def create_export(namespace: str, name: str) -> Pipeline:
    """The exported diffusers pipeline of one co-training."""
    return Pipeline(
        [
            Node(
                nodes.export_student,
                [
                    f"{namespace}.student",
                    f"{namespace}.compensation",
                    "teacher",
                    f"params:{namespace}.cotraining",
                    "params:text",
                ],
                f"{name}_pipeline",
                name=f"export_{name}",
            )
        ]
    )


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=cache_cotraining``."""
    return create_start() + create_cotraining("fractional_167") + create_export("fractional_167", "student")
