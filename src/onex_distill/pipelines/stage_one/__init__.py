"""Stage one: distribution matching, once for the reference generator and once for the student."""

from onex_distill.pipelines.stage_one.pipeline import create_distribution_matching, create_pipeline, create_student

__all__ = ["create_distribution_matching", "create_pipeline", "create_student"]
