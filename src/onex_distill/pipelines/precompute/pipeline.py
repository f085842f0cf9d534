"""captions -> prompts -> embeddings -> plans of evaluation and of validation -> teacher latents on both."""

from functools import partial, update_wrapper

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
                nodes.plan_validation,
                ["prompts", "params:validation_set"],
                "validation_plan",
                name="plan_validation",
            ),
            _sampling_node("sample_teacher", "evaluation_plan", "teacher_latents"),
            _sampling_node("sample_validation", "validation_plan", "validation_latents"),
        ]
    )


def _sampling_node(name: str, plan: str, latents: str) -> Node:
    sample = partial(nodes.sample_teacher, name=name)
    shared = ["teacher", "prompt_embeddings", "empty_prompt_embeddings"]
    return Node(
        update_wrapper(sample, nodes.sample_teacher),
        [*shared, plan, "params:teacher_sampling", "params:compute", "runs"],
        latents,
        name=name,
    )
