import pytest
import torch

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.plan import reuse_after_first
from onex_distill.engine.randomness import seeded
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.metrics.cost import flops_of
from onex_distill.models.sampling import sample_latents
from onex_distill.pretraining.architecture import build_transformer


def test_a_matmul_costs_two_operations_a_product():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert flops_of(lambda: a @ b) == 2 * 3 * 5 * 7


def test_a_batched_matmul_counts_every_batch():
    a, b = torch.ones(4, 3, 5), torch.ones(4, 5, 7)
    assert flops_of(lambda: torch.bmm(a, b)) == 4 * 2 * 3 * 5 * 7


def test_the_call_is_made_once_and_all_of_it_is_counted():
    calls, a = [], torch.ones(6, 6)

    def twice():
        calls.append(1)
        return a @ a @ a

    assert flops_of(twice) == 2 * flops_of(lambda: a @ a)
    assert len(calls) == 1


def test_elementwise_work_is_not_counted():
    a = torch.ones(6, 6)
    assert flops_of(lambda: a + a) == 0


@pytest.mark.parametrize(
    ("function", "products"),
    [
        ({"kind": "identity"}, 0),
        ({"kind": "linear"}, 16 * 16),
        ({"kind": "low_rank", "rank": 2}, 2 * 16 * 2),
        ({"kind": "residual_mlp"}, 4 * 16 * 16),
    ],
)
def test_a_cached_sampling_costs_its_blocks_and_its_compensation(architecture, prompts, noise, function, products):
    with seeded(0):
        transformers = [build_transformer(architecture.model_copy(update={"num_layers": n})) for n in (6, 4)]
    whole, without_band = (
        flops_of(lambda t=t: sample_latents(t, noise, step_sigmas(1, 3.0), prompts)) for t in transformers
    )
    bands = ((1, 3),)
    plan = reuse_after_first(bands, 3)
    cache = BlockCache(transformers[0], plan, Compensation(16, [bands], **function)).attach()
    cached = flops_of(
        lambda: sample_latents(transformers[0], noise, step_sigmas(3, 3.0), prompts, before_step=cache.begin_step)
    )
    tokens = len(noise) * (16 + prompts.embeds.shape[1])
    assert cached == whole + 2 * (without_band + 2 * products * tokens)
