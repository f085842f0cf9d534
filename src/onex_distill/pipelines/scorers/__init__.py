"""The files of the networks that score images: fetched, and converted from pickles."""

from onex_distill.pipelines.scorers.pipeline import create_convert_pipeline, create_fetch_pipeline

__all__ = ["create_convert_pipeline", "create_fetch_pipeline"]
