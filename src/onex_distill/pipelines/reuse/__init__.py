"""How much of each block could be reused between steps: a table and the paper's figure."""

from onex_distill.pipelines.reuse.pipeline import create_pipeline

__all__ = ["create_pipeline"]
