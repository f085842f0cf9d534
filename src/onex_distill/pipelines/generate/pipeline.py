"""captions file + exported student -> PNGs and a contact sheet."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node

nodes = LazyModule("onex_distill.pipelines.generate.nodes")


def create_generation(student: str) -> Pipeline:
    """Images of one exported student, ``student_pipeline`` or ``dial_pipeline``."""
    return Pipeline(
        [
            Node(
                nodes.generate_images,
                [student, "teacher", "generation_captions", "captions", "params:generation", "params:compute", "runs"],
                "generated_images",
                name="generate_images",
            ),
            Node(nodes.draw_contact_sheet, "generated_images", "contact_sheet", name="draw_contact_sheet"),
        ]
    )


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=generate``."""
    return create_generation("student_pipeline")


def create_dial_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=generate_dial``: the student of many budgets, which ``pareto`` makes."""
    return create_generation("dial_pipeline")
