"""Stage two: reference images of the reference generator, then adversarial refinement of a student."""

from onex_distill.pipelines.stage_two.pipeline import (
    create_pipeline,
    create_references,
    create_refinement,
)

__all__ = ["create_pipeline", "create_references", "create_refinement"]
