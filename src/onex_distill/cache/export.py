"""The fractional student as a diffusers pipeline."""

import inspect
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import Tensor
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    SiglipImageProcessor,
    SiglipVisionModel,
    T5EncoderModel,
    T5Tokenizer,
)

import onex_distill.models.compensation  # noqa: F401  diffusers asks for what students of version 0.1 name
from onex_distill.cache.block_cache import BlockCache, check_compensation
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import CachePlan, check_steps, plan_for_budget, reuse_after_first
from onex_distill.cache.turns import check_scheduler, one_sampling_at_a_time
from onex_distill.storage.files import write_text
from onex_distill.storage.model_folder import ModelFolder, refuse_pickles

logger = logging.getLogger(__name__)

SIGMA_TOLERANCE = 0.01
COMPENSATION = "compensation"  # the folder beside the other components


class FractionalStableDiffusion3Pipeline(StableDiffusion3Pipeline):
    """``StableDiffusion3Pipeline`` with the block cache of a fractional student.

    It takes the same call arguments, but defaults to the student's two steps without guidance, and ``nfe``. ``plan`` is
    what ``dataclasses.asdict`` makes of a ``CachePlan``; without it, every step after the first reuses the first set of
    bands that ``compensation`` was trained for. ``sigmas`` are the levels that the student's steps were trained at. The
    folder also opens with plain ``StableDiffusion3Pipeline``, which runs every block in every step. Raises ValueError
    when compensation, plan and transformer do not fit each other.
    """

    _optional_components = [*StableDiffusion3Pipeline._optional_components, "compensation"]  # noqa: RUF012

    def __init__(  # noqa: PLR0913  # the components of diffusers' pipeline, and ours
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
        plan: dict[str, Any] | None = None,
        num_inference_steps: int = 2,
        max_sequence_length: int = 256,
        sigmas: list[float] | None = None,
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
        self.register_to_config(
            num_inference_steps=num_inference_steps, max_sequence_length=max_sequence_length, sigmas=sigmas
        )
        if compensation is not None:
            if transformer is not None:
                check_compensation(compensation, transformer)
            default = reuse_after_first(compensation.candidates[0], num_inference_steps)
            cache_plan = default if plan is None else CachePlan(**plan)
            check_steps(cache_plan, num_inference_steps)
            self.register_to_config(plan=asdict(cache_plan))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load an exported student from a folder or the hub, every component in one dtype.

        As in diffusers, it takes ``torch_dtype`` (float32 if it is not given), ``variant``, and components by name,
        None for those that are not wanted. Weights are read from safetensors alone.

        Raises:
            ValueError: With one line, when the folder or its compensation is missing or damaged, or holds pickles.
        """
        if kwargs.get("torch_dtype") is None and kwargs.get("dtype") is None:
            kwargs["dtype"] = torch.float32  # transformers would load text encoders as they are stored
        kwargs.setdefault("use_safetensors", True)
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = Path(cls.download(str(pretrained_model_name_or_path), **_download_arguments(kwargs)))
        refuse_pickles(folder)
        if "compensation" not in kwargs:
            kwargs["compensation"] = _load_compensation(folder, kwargs)
        return super().from_pretrained(folder, **kwargs)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save as diffusers does; plain diffusers opens the folder too, and then runs every block in every step."""
        super().save_pretrained(save_directory, *args, **kwargs)
        index = Path(save_directory) / self.config_name
        content = json.loads(index.read_text())
        # diffusers refuses hub folders that name classes of other packages; from_pretrained finds the folder itself
        content |= {"_class_name": StableDiffusion3Pipeline.__name__, "compensation": [None, None]}
        write_text(index, json.dumps(content, indent=2) + "\n")

    @torch.no_grad()
    def __call__(self, *args: Any, nfe: float | None = None, **kwargs: Any) -> Any:
        """Sample images; other arguments and the result are those of ``StableDiffusion3Pipeline.__call__``.

        ``nfe`` is a budget of network evaluations per image, guidance not counted: of the sets of bands that the
        compensation was trained for, the one that uses most of it is reused after the first step. Without it the
        exported plan is followed, or, for another number of steps, its bands are reused after the first step.
        """
        call = inspect.signature(StableDiffusion3Pipeline.__call__).bind(self, *args, **kwargs).arguments
        call.pop("self")
        for name, value in self._student_defaults().items():
            call.setdefault(name, value)
        steps = call["num_inference_steps"] if call.get("sigmas") is None else len(call["sigmas"])
        if steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, got {steps}")
        if call.get("skip_guidance_layers"):
            raise ValueError(
                "skip_guidance_layers runs the network twice per step, which the block cache cannot follow"
            )
        if call.get("sigmas") is None:
            # u before the shift: the scheduler applies its shift itself
            call["sigmas"] = [1 - step / steps for step in range(steps)]
        self._warn_of_other_settings(call, steps)
        with one_sampling_at_a_time(self.scheduler):
            if self.compensation is None:
                if nfe is not None:
                    raise ValueError(f"nfe {nfe} needs a compensation and this pipeline has none; leave nfe out")
                return super().__call__(**call)
            check_scheduler(self.scheduler)
            cache = BlockCache(self.transformer, self.cache_plan(steps, nfe), self.compensation).attach()
            try:
                cache.begin_step(0)
                return super().__call__(**_telling_steps(cache, call, self.config.sigmas))
            finally:
                cache.detach()

    def _warn_of_other_settings(self, call: dict[str, Any], steps: int) -> None:
        """Say what the student was not trained for; it samples all the same."""
        if self.compensation is None:
            return
        trained = self.config.num_inference_steps
        if steps != trained:
            logger.warning("The student was trained for %d steps and samples in %d.", trained, steps)
        if call["guidance_scale"] > 1:
            logger.warning(
                "The student was trained without guidance; guidance_scale %g costs twice as much and may oversaturate.",
                call["guidance_scale"],
            )
        size = self.default_sample_size * self.vae_scale_factor
        asked = (call.get("height") or size, call.get("width") or size)
        if asked != (size, size):
            logger.warning("The student was trained at %d x %d pixels and samples %d x %d.", size, size, *asked)

    def cache_plan(self, steps: int, nfe: float | None) -> CachePlan:
        """What a call with these arguments reuses. Raises ValueError for a budget that the student lacks."""
        if nfe is not None:
            num_layers = len(self.transformer.transformer_blocks)
            try:
                return plan_for_budget(nfe, self.compensation.candidates, num_layers, steps)
            except ValueError as error:
                raise ValueError(
                    f"{error}; a student of many budgets is dial_pipeline, which `kedro run --pipelines=pareto` makes"
                ) from error
        plan = CachePlan(**self.config.plan)
        return plan if plan.num_inference_steps == steps else reuse_after_first(plan.bands, steps)

    def _student_defaults(self) -> dict[str, Any]:
        return {
            "num_inference_steps": self.config.num_inference_steps,
            "guidance_scale": 1.0,
            "max_sequence_length": self.config.max_sequence_length,
        }


def _load_compensation(folder: Path, arguments: dict[str, Any]) -> Compensation | None:
    """The compensation beside the other components, if the folder has one. Raises ValueError with one line."""
    index = folder / FractionalStableDiffusion3Pipeline.config_name
    plan = json.loads(index.read_text()).get("plan") if index.is_file() else None
    if plan is None and not (folder / COMPENSATION).is_dir():
        return None
    name = f"{Compensation.__module__}.{Compensation.__qualname__}"
    passed = {key: arguments[key] for key in ("torch_dtype", "dtype", "variant") if arguments.get(key) is not None}
    if not list((folder / COMPENSATION).glob(f"*.{passed.get('variant')}.safetensors")):
        passed.pop("variant", None)
    try:
        compensation: Compensation = ModelFolder(path=folder / COMPENSATION, class_name=name).load(**passed)
    except ValueError as error:
        raise ValueError(f"{error}; copy the exported student again, or export it again") from error
    return compensation.eval()


def _download_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of ``from_pretrained`` that say what to download, from where and by whom."""
    names = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "variant")
    return {name: arguments[name] for name in (*names, "use_safetensors") if name in arguments}


def _telling_steps(cache: BlockCache, call: dict[str, Any], trained: list[float] | None) -> dict[str, Any]:
    """The arguments of a call with a callback that begins the cache's next step, around the one that they have.

    A hook on the transformer would be part of what torch.compile compiles.
    """
    callback = call.get("callback_on_step_end")

    def after_step(pipeline: StableDiffusion3Pipeline, step: int, timestep: Tensor, tensors: dict[str, Any]) -> Any:
        if step == 0:
            _warn_of_other_sigmas(pipeline.scheduler.sigmas[:-1].tolist(), trained)
        if step + 1 < cache.plan.num_inference_steps:
            cache.begin_step(step + 1)
        return {} if callback is None else callback(pipeline, step, timestep, tensors)

    call = {**call, "callback_on_step_end": after_step}
    if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
        # diffusers asks its own callbacks what they read, but does not see them inside this one
        call["callback_on_step_end_tensor_inputs"] = callback.tensor_inputs
    return call


def _warn_of_other_sigmas(sampled: list[float], trained: list[float] | None) -> None:
    """Say when a scheduler (swapped, or of another shift) takes the student's steps at levels it does not know."""
    if trained is None or len(sampled) != len(trained):
        return
    if max(abs(s - t) for s, t in zip(sampled, trained, strict=True)) > SIGMA_TOLERANCE:
        levels = [[round(sigma, 3) for sigma in sigmas] for sigmas in (trained, sampled)]
        logger.warning("The student was trained at sigmas %s and the scheduler takes %s.", *levels)
