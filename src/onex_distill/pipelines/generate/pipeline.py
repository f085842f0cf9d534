"""captions file + exported student -> PNGs and a contact sheet."""

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.generate import nodes


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=generate``."""
    return Pipeline(
        [
            Node(
                nodes.generate_images,
                ["student_pipeline", "generation_captions", "params:generation"],
                ["generated_images", "contact_sheet"],
                name="generate_images",
            )
        ]
    )
