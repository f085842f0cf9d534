"""prompts and teacher samples -> a student per setting and seed -> table -> plot."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines import precompute
from onex_distill.pipelines.evaluation.pipeline import create_inputs, decode_teacher_node, extract_node
from onex_distill.pipelines.lazy import LazyModule, Node

nodes = LazyModule("onex_distill.pipelines.ablation.nodes")


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=ablation``; it needs nothing but the committed inputs."""
    ablation = Pipeline(
        [
            decode_teacher_node(),
            extract_node("teacher"),
            extract_node("ablation"),
            Node(
                nodes.train_variations,
                ["sampling_inputs", "evaluation_plan", "params:ablation", "params:compute", "runs"],
                "ablation_samples",
                name="train_variations",
            ),
            Node(
                nodes.score_variations,
                ["ablation_features", "teacher_features", "params:metrics", "params:confidence"],
                ["ablation_table", "ablation_teacher"],
                name="score_variations",
            ),
            Node(nodes.summarise_variations, "ablation_table", "ablation_summary", name="summarise_ablation"),
            Node(
                nodes.plot_alignment_against_diversity,
                ["ablation_summary", "ablation_teacher"],
                "ablation_plot",
                name="plot_alignment_against_diversity",
            ),
        ]
    )
    graph = create_inputs() + ablation
    prepared = precompute.create_pipeline()
    return prepared.to_outputs(*(graph.inputs() & prepared.all_outputs())) + graph
