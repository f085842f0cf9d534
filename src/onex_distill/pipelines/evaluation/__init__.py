"""Samples of every method, one node a metric, one table, one report."""

from onex_distill.pipelines.evaluation.pipeline import create_evaluation, create_pipeline

__all__ = ["create_evaluation", "create_pipeline"]
