"""Images from a captions file with the exported student."""

from onex_distill.pipelines.generate.pipeline import create_pipeline

__all__ = ["create_pipeline"]
