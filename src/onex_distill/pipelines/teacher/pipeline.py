"""renderer -> readers, autoencoder, text encoders -> transformer -> teacher folder -> acceptance."""

from kedro.pipeline import Pipeline

from onex_distill.pipelines.lazy import LazyModule, Node

nodes = LazyModule("onex_distill.pipelines.teacher.nodes")


def create_readers() -> Pipeline:
    """The evaluator that scores and the recogniser that the discriminator stands on."""
    return Pipeline(
        [
            Node(
                nodes.train_evaluator,
                ["params:evaluator", "params:compute", "runs"],
                ["built_evaluator", "evaluator_losses"],
                name="train_evaluator",
            ),
            Node(
                nodes.train_recogniser,
                ["params:recogniser", "params:compute", "runs"],
                ["built_recogniser", "recogniser_losses"],
                name="train_recogniser",
            ),
        ]
    )


def create_encoders() -> Pipeline:
    """Captions, the autoencoder and the text encoders."""
    return Pipeline(
        [
            Node(nodes.build_captions, None, "built_captions", name="build_captions"),
            Node(
                nodes.train_autoencoder,
                ["params:architecture", "params:autoencoder", "params:compute", "runs"],
                ["autoencoder", "autoencoder_losses"],
                name="train_autoencoder",
            ),
            Node(
                nodes.train_text_encoders,
                ["built_captions", "params:architecture", "params:text_encoders", "params:compute", "runs"],
                ["text_components", "text_encoder_losses"],
                name="train_text_encoders",
            ),
        ]
    )


def create_transformer() -> Pipeline:
    """The velocity network on latents of rendered images."""
    settings = ["params:architecture", "params:transformer", "params:compute"]
    return Pipeline(
        [
            Node(
                nodes.encode_training_images,
                ["built_captions", "autoencoder", "params:training_images", "runs"],
                "training_latents",
                name="encode_training_images",
            ),
            Node(
                nodes.train_transformer,
                ["training_latents", "text_components", *settings, "runs"],
                ["teacher_transformer", "transformer_losses"],
                name="train_transformer",
            ),
        ]
    )


def create_teacher() -> Pipeline:
    """The teacher's folder, and whether it paints what captions say."""
    return Pipeline(
        [
            Node(
                nodes.assemble_teacher,
                ["teacher_transformer", "autoencoder", "training_latents", "text_components"],
                "built_teacher",
                name="assemble_teacher",
            ),
            Node(
                nodes.accept_teacher,
                ["built_teacher", "built_evaluator", "built_recogniser", "built_captions", "params:acceptance"],
                ["built_acceptance", "built_acceptance_grid"],
                name="accept_teacher",
            ),
        ]
    )


def create_pipeline() -> Pipeline:
    """The graph of ``kedro run --pipelines=teacher``; its ``built_`` outputs are used once they are adopted."""
    parts = create_readers() + create_encoders() + create_transformer() + create_teacher()
    return Pipeline(parts, tags="teacher")
