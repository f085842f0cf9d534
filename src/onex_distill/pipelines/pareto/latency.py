"""How long every budget takes: all in turn, so that a slow moment of the machine meets all of them."""

import time
from statistics import median

import pandas as pd
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import reuse_after_first
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.ranks import Ranks
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import decode_latents, sample_latents
from onex_distill.models.teacher import TeacherFolder
from onex_distill.pipelines.evaluation.params import MethodParams
from onex_distill.pipelines.pareto.params import LatencyParams
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable


@torch.inference_mode()
def time_fronts(
    student: ModelFolder,
    teacher: TeacherFolder,
    embeddings: TensorTable,
    empty: TensorTable,
    plan: pd.DataFrame,
    method: MethodParams,
    params: LatencyParams,
    compute: ComputeParams,
    **compensations: ModelFolder,
) -> pd.DataFrame:
    """Median seconds an image of every front's sets of bands, transformer and decoding, in one process.

    Time does not depend on the weights, so one student serves the compensations of all fronts, with ``method``'s steps
    and guidance.
    """
    alone = Ranks(compute.model_copy(update={"processes": 1, "machines": 1}))
    transformer: SD3Transformer2DModel = student.load().to(alone.device).eval()
    autoencoder: AutoencoderKL = teacher.autoencoder.load().to(alone.device).eval()
    rows, sigmas = plan.head(params.batch_size), step_sigmas(method.steps, teacher.shift)
    noise = noise_from_seeds(rows["noise_seed"], latent_shape(transformer)).to(alone.device)
    prompts = read_prompts(embeddings, rows["prompt_row"].to_numpy(), alone.device)
    nothing, scale = read_prompts(empty, [0], alone.device), method.guidance_scale

    def seconds(cache: BlockCache) -> float:
        cache.attach()
        began = time.perf_counter()
        with alone.autocast():
            latents = sample_latents(transformer, noise, sigmas, prompts, nothing, scale, cache.begin_step)
        decode_latents(autoencoder, latents).cpu()  # which waits for the device
        spent = time.perf_counter() - began
        cache.detach()
        return spent / len(rows)

    caches = {}
    for front, folder in compensations.items():
        compensation: Compensation = folder.load().to(alone.device).eval()
        for bands in compensation.candidates:
            cached = reuse_after_first(bands, method.steps)
            caches[front, str([list(band) for band in bands])] = BlockCache(transformer, cached, compensation)
    rounds = [[seconds(cache) for cache in caches.values()] for _ in range(1 + params.rounds)]
    medians = [median(times) for times in zip(*rounds[1:], strict=True)]  # the first round warms up
    fronts, bands_of = zip(*caches, strict=True)
    return pd.DataFrame({"front": fronts, "bands": bands_of, "seconds_per_image": medians})
