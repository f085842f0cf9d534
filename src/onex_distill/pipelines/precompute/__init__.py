"""Everything that training reads: prompts, their embeddings, the evaluation plan and the teacher's latents."""

from onex_distill.pipelines.precompute.pipeline import create_pipeline

__all__ = ["create_pipeline"]
