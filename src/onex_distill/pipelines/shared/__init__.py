"""What several pipelines read: inputs gathered as one dataset, and the features of images."""

from onex_distill.pipelines.shared.pipeline import (
    create_adversarial_inputs,
    create_conditions,
    create_sampling_inputs,
    extract_node,
)

__all__ = ["create_adversarial_inputs", "create_conditions", "create_sampling_inputs", "extract_node"]
