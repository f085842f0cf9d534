"""Images from a captions file with an exported student."""

from onex_distill.pipelines.generate.pipeline import create_dial_pipeline, create_pipeline

__all__ = ["create_dial_pipeline", "create_pipeline"]
