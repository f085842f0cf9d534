"""Distill-Cache co-training: the fractional step."""

from onex_distill.pipelines.cache_cotraining.pipeline import create_cotraining, create_export, create_pipeline

__all__ = ["create_cotraining", "create_export", "create_pipeline"]
