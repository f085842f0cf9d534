"""The dial against specialised students and training-free caching, and the search for bands."""

from onex_distill.pipelines.pareto.pipeline import create_pipeline

__all__ = ["create_pipeline"]
