"""The fractional student as a diffusers pipeline."""

import inspect
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    SiglipImageProcessor,
    SiglipVisionModel,
    T5EncoderModel,
    T5Tokenizer,
)

from onex_distill.models.block_cache import BlockCache
from onex_distill.models.compensation import Compensation


class FractionalStableDiffusion3Pipeline(StableDiffusion3Pipeline):
    """``StableDiffusion3Pipeline`` with the block cache of a fractional student.

    It takes the same call arguments, but defaults to the student's two steps without guidance. The first step runs
    every block, each later one reuses the band that ``compensation`` was trained for. The folder also opens with
    plain ``StableDiffusion3Pipeline``, which runs every block in every step.
    """

    _optional_components = [*StableDiffusion3Pipeline._optional_components, "compensation"]  # noqa: RUF012

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer_2: CLIPTokenizer,
        text_encoder_3: T5EncoderModel,
        tokenizer_3: T5Tokenizer,
        image_encoder: SiglipVisionModel = None,
        feature_extractor: SiglipImageProcessor = None,
        compensation: Compensation | None = None,
        num_inference_steps: int = 2,
        max_sequence_length: int = 256,
    ) -> None:
        super().__init__(
            transformer=transformer,
            scheduler=scheduler,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )
        self.register_modules(compensation=compensation)
        self.register_to_config(num_inference_steps=num_inference_steps, max_sequence_length=max_sequence_length)

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Sample images; arguments and result are those of ``StableDiffusion3Pipeline.__call__``."""
        call = inspect.signature(StableDiffusion3Pipeline.__call__).bind(self, *args, **kwargs).arguments
        call.pop("self")
        for name, value in self._student_defaults().items():
            call.setdefault(name, value)
        steps = call["num_inference_steps"]
        if steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, got {steps}")
        if call.get("skip_guidance_layers"):
            raise ValueError("skip_guidance_layers runs the network twice a step, which the block cache cannot follow")
        if call.get("sigmas") is None:
            # u before the shift: the scheduler applies its shift itself
            call["sigmas"] = [1 - step / steps for step in range(steps)]
        if self.compensation is None:
            return super().__call__(**call)
        start, stop = self.compensation.config.cached_blocks
        cache = BlockCache(self.transformer, (start, stop), self.compensation).attach()
        handle = self.transformer.register_forward_pre_hook(_StepCounter(cache))
        try:
            return super().__call__(**call)
        finally:
            handle.remove()
            cache.detach()

    def _student_defaults(self) -> dict[str, Any]:
        return {
            "num_inference_steps": self.config.num_inference_steps,
            "guidance_scale": 1.0,
            "max_sequence_length": self.config.max_sequence_length,
        }


class _StepCounter:
    """Tells the cache about each step: the pipeline calls the transformer once a step."""

    def __init__(self, cache: BlockCache) -> None:
        self.cache = cache
        self.step = 0

    def __call__(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        self.cache.begin_step(self.step)
        self.step += 1
