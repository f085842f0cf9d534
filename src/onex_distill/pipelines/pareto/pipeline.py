"""students and their compensations -> fronts -> pareto table; predicted damage -> band search."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node
from onex_distill.pipelines.shared import create_sampling_inputs

nodes = LazyModule("onex_distill.pipelines.pareto.nodes")
fronts = LazyModule("onex_distill.evaluation.studies.fronts")
latency = LazyModule("onex_distill.evaluation.studies.latency")
band_search = LazyModule("onex_distill.evaluation.studies.band_search")

MEASURED = ("dial", "fractional_150", "fractional_167", "fractional_183")


def measure_node(front: str, student: str) -> Node:
    """The front of one student and its compensation."""
    name = f"measure_{front}"
    inputs = [student, f"{front}.compensation", "study_inputs", "evaluation_plan"]
    return Node(
        fronts.measure_front, [*inputs, f"params:fronts.{front}", "params:compute", "runs"], f"{front}_front", name=name
    )


def create_band_search() -> Pipeline:
    """Bands of one budget by predicted and then measured damage."""
    return Pipeline(
        [
            Node(
                band_search.predict_bands,
                ["cotraining_start", "sampling_inputs", "evaluation_plan", "params:band_search"],
                "predicted_damage",
                name="predict_bands",
            ),
            Node(
                band_search.measure_bands,
                [
                    "cotraining_start",
                    "predicted_damage",
                    "study_inputs",
                    "evaluation_plan",
                    "params:band_search",
                    "params:compute",
                    "runs",
                ],
                "band_search_table",
                name="measure_bands",
            ),
            Node(nodes.plot_band_search, "band_search_table", "band_search_plot", name="plot_band_search"),
        ]
    )


def create_fronts() -> Pipeline:
    """Every method along its budgets, the table and the plot."""
    names = ("plain", *MEASURED)
    return Pipeline(
        [
            Node(
                nodes.gather_study_inputs,
                [
                    "sampling_inputs",
                    "teacher_features",
                    "params:scorers",
                    "params:metrics",
                    "params:confidence",
                ],
                "study_inputs",
                name="gather_study_inputs",
            ),
            Node(
                nodes.plain_caching,
                ["cotraining_start", "dial.compensation"],
                "plain.compensation",
                name="plain_caching",
            ),
            measure_node("plain", "cotraining_start"),
            *(measure_node(name, f"{name}.student") for name in MEASURED),
            Node(
                nodes.gather_compensations,
                {name: f"{name}.compensation" for name in names},
                "compensations",
                name="gather_compensations",
            ),
            Node(
                latency.time_fronts,
                [
                    "cotraining_start",
                    "compensations",
                    "sampling_inputs",
                    "evaluation_plan",
                    "params:latency",
                    "params:compute",
                ],
                "latency_table",
                name="time_fronts",
            ),
            Node(
                fronts.collect_fronts,
                {"latency": "latency_table", **{name: f"{name}_front" for name in names}},
                "pareto_table",
                name="collect_fronts",
            ),
            Node(nodes.plot_pareto, "pareto_table", "pareto_plot", name="plot_pareto"),
        ]
    )


def create_pipeline() -> Pipeline:
    """Fronts of trained students, and the band search."""
    return create_sampling_inputs() + create_fronts() + create_band_search()
