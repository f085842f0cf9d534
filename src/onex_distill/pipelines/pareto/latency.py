"""How long the budgets of one student take: in turn, so that a slow moment of the machine meets all of them."""

import time
from statistics import median

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel

from onex_distill.engine.ranks import Ranks
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.block_cache import BlockCache
from onex_distill.models.cache_plan import Bands, reuse_after_first
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import decode_latents, sample_latents
from onex_distill.pipelines.evaluation.params import MethodParams
from onex_distill.pipelines.evaluation.sampler import Sampler
from onex_distill.pipelines.pareto.params import LatencyParams
from onex_distill.storage.model_folder import ModelFolder


@torch.inference_mode()
def seconds_per_image(
    student: ModelFolder,
    compensation: ModelFolder,
    candidates: tuple[Bands, ...],
    method: MethodParams,
    sampler: Sampler,
    params: LatencyParams,
) -> list[float]:
    """Median seconds an image of each set of bands, transformer and decoding, in one process."""
    alone = Ranks(sampler.compute.model_copy(update={"processes": 1, "machines": 1}))
    transformer: SD3Transformer2DModel = student.load().to(alone.device).eval()
    autoencoder: AutoencoderKL = sampler.teacher.autoencoder.load().to(alone.device).eval()
    plans = [reuse_after_first(bands, method.steps) for bands in candidates]
    cache = BlockCache(transformer, plans[0], compensation.load().to(alone.device).eval()).attach()
    rows, sigmas = sampler.plan.head(params.batch_size), step_sigmas(method.steps, sampler.teacher.shift)
    noise = noise_from_seeds(rows["noise_seed"], latent_shape(transformer)).to(alone.device)
    prompts = read_prompts(sampler.embeddings, rows["prompt_row"].to_numpy(), alone.device)
    empty, scale = read_prompts(sampler.empty, [0], alone.device), method.guidance_scale

    def seconds() -> float:
        began = time.perf_counter()
        with alone.autocast():
            latents = sample_latents(transformer, noise, sigmas, prompts, empty, scale, cache.begin_step)
        decode_latents(autoencoder, latents).cpu()  # which waits for the device
        return (time.perf_counter() - began) / len(rows)

    times: list[list[float]] = [[] for _ in plans]
    for _ in range(1 + params.rounds):
        for of_plan, cache_plan in zip(times, plans, strict=True):
            cache.use(cache_plan)
            of_plan.append(seconds())
    return [median(of_plan[1:]) for of_plan in times]  # the first round warms up
