"""students of distill -> dial and specialised students -> fronts -> pareto table; reuse errors -> band search."""

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from onex_distill.pipelines.cache_cotraining import create_cotraining, create_export
from onex_distill.pipelines.pareto import latency, nodes, search

TRAINED = ("dial", "fractional_150", "fractional_183")
MEASURED = ("dial", "fractional_150", "fractional_167", "fractional_183")
SAMPLING = ["teacher", "prompt_embeddings", "empty_prompt_embeddings", "evaluation_plan"]


def measure_node(front: str, student: str) -> Node:
    """The front of one student and its compensation."""
    name = f"measure_{front}"
    inputs = [student, f"{front}_compensation", "evaluator", "teacher_samples", *SAMPLING]
    parameters = [f"params:fronts.{front}", "params:evaluation", "params:compute"]
    measure = update_wrapper(partial(nodes.measure_front, name=name), nodes.measure_front)
    return Node(measure, [*inputs, *parameters, "runs"], f"{front}_front", name=name)


def create_band_search() -> Pipeline:
    """Bands of one budget by predicted and then measured damage."""
    settings = ["params:band_search", "params:evaluation"]
    return Pipeline(
        [
            Node(
                search.predict_bands,
                ["cotraining_start", "teacher", "prompt_embeddings", "evaluation_plan", *settings],
                "predicted_damage",
                name="predict_bands",
            ),
            Node(
                search.measure_bands,
                ["cotraining_start", "predicted_damage", "evaluator", *SAMPLING, *settings, "params:compute", "runs"],
                "band_search_table",
                name="measure_bands",
            ),
        ]
    )


def create_fronts() -> Pipeline:
    """Every method along its budgets, the table and the plot."""
    names = ("plain", *MEASURED)
    return Pipeline(
        [
            Node(
                nodes.plain_caching,
                ["cotraining_start", "dial_compensation"],
                "plain_compensation",
                name="plain_caching",
            ),
            measure_node("plain", "cotraining_start"),
            *(measure_node(name, f"{name}_student") for name in MEASURED),
            Node(
                latency.time_fronts,
                {
                    "student": "cotraining_start",
                    "teacher": "teacher",
                    "embeddings": "prompt_embeddings",
                    "empty": "empty_prompt_embeddings",
                    "plan": "evaluation_plan",
                    "method": "params:fronts.plain",
                    "params": "params:latency",
                    "compute": "params:compute",
                    **{name: f"{name}_compensation" for name in names},
                },
                "latency_table",
                name="time_fronts",
            ),
            Node(
                nodes.collect_fronts,
                {"latency": "latency_table", **{name: f"{name}_front" for name in names}},
                "pareto_table",
                name="collect_fronts",
            ),
            Node(nodes.plot_pareto, "pareto_table", "pareto_plot", name="plot_pareto"),
        ]
    )


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipeline=pareto``; it needs the results of ``distill`` on disk."""
    training = sum((create_cotraining(name) for name in TRAINED), Pipeline([]))
    return training + create_export("dial", "dial") + create_fronts() + create_band_search()
