"""Scores of anything: folders of images with captions, diffusers pipelines, our students."""

from onex_distill.pipelines.score.pipeline import create_pipeline

__all__ = ["create_pipeline"]
