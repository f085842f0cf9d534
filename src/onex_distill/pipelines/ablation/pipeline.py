"""prompts and teacher samples -> a student a setting and seed -> table -> plot."""

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines import precompute
from onex_distill.pipelines.ablation import nodes, report
from onex_distill.pipelines.evaluation.pipeline import decode_teacher_node


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=ablation``; it needs nothing but the committed inputs."""
    ablation = Pipeline(
        [
            decode_teacher_node(),
            Node(
                nodes.train_variations,
                [
                    "teacher",
                    "prompt_embeddings",
                    "empty_prompt_embeddings",
                    "evaluation_plan",
                    "params:ablation",
                    "params:compute",
                    "runs",
                ],
                "ablation_samples",
                name=nodes.NODE,
            ),
            Node(
                nodes.score_variations,
                ["evaluator", "teacher_samples", "ablation_samples"],
                ["ablation_table", "ablation_teacher"],
                name="score_variations",
            ),
            Node(report.summarise, "ablation_table", "ablation_summary", name="summarise_ablation"),
            Node(
                report.plot_alignment_against_diversity,
                ["ablation_summary", "ablation_teacher"],
                "ablation_plot",
                name="plot_alignment_against_diversity",
            ),
        ]
    )
    prepared = precompute.create_pipeline()
    return prepared.to_outputs(*(ablation.inputs() & prepared.all_outputs())) + ablation
