"""What each choice of stage one does: one factor at a time around a default, several seeds each."""

from onex_distill.pipelines.ablation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
