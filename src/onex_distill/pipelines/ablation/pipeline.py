"""plan and teacher features -> a student per setting and seed, and what each should become -> tables -> plot."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node
from onex_distill.pipelines.shared import create_sampling_inputs, extract_node

nodes = LazyModule("onex_distill.pipelines.ablation.nodes")
study = LazyModule("onex_distill.evaluation.studies.ablation")


def create_pipeline() -> Pipeline:
    """The ablation itself, on the plan and the teacher's features of an evaluation."""
    settings = ["params:ablation", "params:teacher_sampling", "params:compute", "runs"]
    ablation = Pipeline(
        [
            extract_node("ablation"),
            extract_node("ablation_targets"),
            Node(
                nodes.sample_targets,
                ["sampling_inputs", "evaluation_plan", *settings],
                "ablation_targets_samples",
                name="sample_targets",
            ),
            Node(
                study.train_variations,
                ["sampling_inputs", "evaluation_plan", "params:ablation", "params:compute", "runs"],
                "ablation_samples",
                name="train_variations",
            ),
            Node(
                study.score_variations,
                [
                    "ablation_features",
                    "ablation_targets_features",
                    "teacher_features",
                    "params:metrics",
                    "params:confidence",
                ],
                ["ablation_table", "ablation_targets"],
                name="score_variations",
            ),
            Node(study.summarise_variations, "ablation_table", "ablation_summary", name="summarise_ablation"),
            Node(
                nodes.plot_alignment_against_diversity,
                ["ablation_summary", "ablation_targets"],
                "ablation_plot",
                name="plot_alignment_against_diversity",
            ),
        ]
    )
    return create_sampling_inputs() + ablation
