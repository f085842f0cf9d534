"""How long every budget takes: all in turn, so that a slow moment of the machine meets all of them."""

import time

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import reuse_after_first
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.ranks import Ranks
from onex_distill.evaluation.inputs import CompensationSets, SamplingInputs
from onex_distill.evaluation.methods import SECONDS
from onex_distill.evaluation.studies.params import LatencyParams
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.noise import latent_shape, noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import decode_latents, sample_latents
from onex_distill.storage.model_folder import ModelFolder

TRANSFORMER_SECONDS = "transformer_seconds"


@torch.inference_mode()
def time_fronts(
    student: ModelFolder,
    compensations: CompensationSets,
    inputs: SamplingInputs,
    plan: pd.DataFrame,
    params: LatencyParams,
    compute: ComputeParams,
) -> pd.DataFrame:
    """Median seconds per image of every front's sets of bands, in one process: of the transformer, and with decoding.

    Time does not depend on the weights, so one student serves the compensations of all fronts.

    Args:
        student: the transformer.
        compensations: of every front, by its name.
        inputs: captions and autoencoder.
        plan: captions and noise, of which the first rows are sampled.
        params: steps, rounds, and images per batch.
        compute: where to run, in one process.

    Returns:
        A row per front and set of bands, with ``transformer_seconds`` and ``seconds_per_image``, which adds decoding.
    """
    alone = Ranks(compute.model_copy(update={"processes": 1, "machines": 1}))
    transformer: SD3Transformer2DModel = student.load().to(alone.device).eval()
    autoencoder: AutoencoderKL = inputs.teacher.autoencoder.load().to(alone.device).eval()
    rows, sigmas = plan.head(params.batch_size), step_sigmas(params.num_inference_steps, inputs.teacher.shift)
    noise = noise_from_seeds(rows["noise_seed"], latent_shape(transformer)).to(alone.device)
    prompts = read_prompts(inputs.embeddings.open(), rows["prompt_row"].to_numpy(), alone.device)

    def seconds(cache: BlockCache) -> tuple[float, float]:
        cache.attach()
        began = time.perf_counter()
        with alone.autocast():
            latents = sample_latents(transformer, noise, sigmas, prompts, before_step=cache.begin_step)
        latents.cpu()  # which waits for the device
        sampled = time.perf_counter()
        decode_latents(autoencoder, latents).cpu()
        decoded = time.perf_counter()
        cache.detach()
        return (sampled - began) / len(rows), (decoded - began) / len(rows)

    caches = {}
    for front, folder in compensations.folders:
        compensation: Compensation = folder.load().to(alone.device).eval()
        for bands in compensation.candidates:
            cached = reuse_after_first(bands, params.num_inference_steps)
            caches[front, str([list(band) for band in bands])] = BlockCache(transformer, cached, compensation)
    rounds = [[seconds(cache) for cache in caches.values()] for _ in range(1 + params.rounds)]
    times = np.median(rounds[1:], axis=0)  # (front and bands, kind of time); the first round warms up
    table = pd.DataFrame(list(caches), columns=["front", "bands"])
    return table.assign(**{TRANSFORMER_SECONDS: times[:, 0], SECONDS: times[:, 1]})
