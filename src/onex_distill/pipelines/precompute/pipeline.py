"""captions -> prompts -> embeddings -> evaluation plan -> teacher latents."""

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.precompute import nodes, planning


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=precompute``."""
    return Pipeline(
        [
            Node(nodes.prepare_prompts, "captions", "prompts", name="prepare_prompts"),
            Node(
                planning.plan_resources,
                [
                    "teacher",
                    "prompts",
                    "params:text",
                    "params:reference.stage_one",
                    "params:student.stage_one",
                    "params:student.stage_two",
                    "params:fractional_167.cotraining",
                    "params:compute",
                    "runs",
                ],
                "resource_plan",
                name="plan_resources",
            ),
            Node(
                nodes.embed_prompts,
                ["prompts", "teacher", "resource_plan", "params:text", "params:compute", "runs"],
                ["prompt_embeddings", "empty_prompt_embeddings"],
                name="embed_prompts",
            ),
            Node(
                nodes.plan_evaluation,
                ["prompts", "params:evaluation_set"],
                "evaluation_plan",
                name="plan_evaluation",
            ),
            Node(
                nodes.sample_teacher,
                [
                    "teacher",
                    "prompt_embeddings",
                    "empty_prompt_embeddings",
                    "evaluation_plan",
                    "params:teacher_sampling",
                    "params:compute",
                    "runs",
                ],
                "teacher_latents",
                name="sample_teacher",
            ),
        ]
    )
