"""Samples of every method, their features, one node per metric, one table, one report."""

from onex_distill.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
