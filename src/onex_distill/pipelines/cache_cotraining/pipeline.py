"""student -> cached inference path -> student with compensation -> exported pipeline."""

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.cache_cotraining import nodes
from onex_distill.pipelines.stage_two import pipeline as stage_two

OUTPUTS = ("band", "student", "compensation", "cotraining_losses")
INPUTS = {"cotraining_start", *stage_two.SHARED}


def create_start() -> Pipeline:
    """Choose the student that every co-training starts from."""
    return Pipeline(
        [
            Node(
                nodes.choose_start,
                ["student_stage_one", "student_stage_two", "params:cotraining_start"],
                "cotraining_start",
                name="choose_start",
            )
        ]
    )


def create_cotraining(namespace: str) -> Pipeline:
    """One co-training: ``cotraining_start`` to ``<namespace>_student`` and ``<namespace>_compensation``."""
    train = partial(nodes.cotrain_cache, name=f"{namespace}.cotrain_cache")
    template = Pipeline(
        [
            Node(nodes.check_band, ["teacher", "params:cotraining"], "band", name="check_band"),
            Node(
                update_wrapper(train, nodes.cotrain_cache),
                [
                    "cotraining_start",
                    "band",
                    "teacher",
                    "recogniser",
                    *stage_two.REFERENCES,
                    "params:cotraining",
                    "params:compute",
                    "runs",
                ],
                ["student", "compensation", "cotraining_losses"],
                name="cotrain_cache",
            ),
        ]
    )
    outputs = {name: f"{namespace}_{name}" for name in OUTPUTS}
    return Pipeline(template, namespace=namespace, inputs=INPUTS, outputs=outputs, parameters={"references", "compute"})


def create_export(namespace: str, name: str) -> Pipeline:
    """The exported diffusers pipeline of one co-training."""
    return Pipeline(
        [
            Node(
                nodes.export_student,
                [
                    f"{namespace}_student",
                    f"{namespace}_compensation",
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
    """The graph of ``kedro run --pipeline=cache_cotraining``."""
    return create_start() + create_cotraining("fractional_167") + create_export("fractional_167", "student")
