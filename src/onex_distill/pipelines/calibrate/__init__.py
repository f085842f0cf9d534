"""Which variant of each metric comes nearest to the teacher's published row."""

from onex_distill.pipelines.calibrate.pipeline import create_pipeline

__all__ = ["create_pipeline"]
