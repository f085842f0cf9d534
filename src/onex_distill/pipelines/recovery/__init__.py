"""What compensation recovers of what plain caching loses, trained alone and together with the student."""

from onex_distill.pipelines.recovery.pipeline import create_pipeline

__all__ = ["create_pipeline"]
