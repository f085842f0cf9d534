"""The further rows of the metrics table: other settings of the same loop, scored beside the main job's methods."""

from onex_distill.pipelines.baselines.pipeline import create_pipeline

__all__ = ["create_pipeline"]
