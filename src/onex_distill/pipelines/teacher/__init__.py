"""Build the embedded teacher and the networks that read its images, from nothing."""

from onex_distill.pipelines.teacher.pipeline import create_pipeline

__all__ = ["create_pipeline"]
