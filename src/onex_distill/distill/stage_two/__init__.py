"""Stage two: detail-focused, inference-consistent adversarial refinement."""
