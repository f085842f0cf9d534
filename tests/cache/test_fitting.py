import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from onex_distill.cache.block_cache import BlockCache
from onex_distill.cache.compensation import Compensation, Streams
from onex_distill.cache.fitting import edges, entering_streams, residual_loss
from onex_distill.cache.plan import reuse_after_first
from onex_distill.cache.reuse_error import sampled_reuse_errors
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import sample_latents

LEVELS = step_sigmas(2, 3.0)
BAND = (1, 3)


@pytest.fixture
def forwards(transformer: SD3Transformer2DModel, noise: Tensor, prompts: PromptBatch) -> list[dict[int, Streams]]:
    with torch.no_grad(), entering_streams(transformer, range(4)) as streams:
        sample_latents(transformer, noise, LEVELS, prompts)
    return streams


def test_every_block_of_every_step_is_seen_and_the_hooks_go(transformer, forwards, noise, prompts):
    assert [list(blocks) for blocks in forwards] == [[0, 1, 2, 3]] * 2
    with torch.no_grad():
        sample_latents(transformer, noise, LEVELS, prompts)
    assert len(forwards) == 2


def test_blocks_that_no_band_begins_or_ends_at_are_not_kept(transformer, forwards, noise, prompts):
    with torch.no_grad(), entering_streams(transformer, edges([(1, 3), (1, 2)])) as streams:
        sample_latents(transformer, noise, LEVELS, prompts)
    assert [set(blocks) for blocks in streams] == [{1, 2, 3}] * 2
    for step in range(2):
        for block, streams_there in streams[step].items():
            assert all(map(torch.equal, streams_there, forwards[step][block]))


def test_plain_caching_has_the_squared_reuse_error(transformer, forwards, noise, prompts):
    plain = Compensation(16, [[BAND]], "identity")
    table = sampled_reuse_errors(transformer, noise[:1], LEVELS, prompts[torch.tensor([0])], [BAND])
    errors = table[(table["block"] == 1) & (table["stop"] == 3)]["reuse_error"]
    one = [{number: (text[:1], image[:1]) for number, (text, image) in blocks.items()} for blocks in forwards]
    assert float(residual_loss(plain, one, LEVELS)) == pytest.approx(float((errors**2).mean()), rel=1e-4)


@torch.no_grad()
def test_the_loss_is_its_formula():
    """Every band in every later step against its residual of the first, in a third step too; rows count alike."""
    draws, levels, bands = torch.Generator().manual_seed(0), step_sigmas(3, 3.0), [(1, 3), (2, 3)]
    compensation = Compensation(16, [[band] for band in bands], "sigma_residual_mlp")
    for parameter in compensation.parameters():
        nn.init.normal_(parameter, std=0.2)
    sizes = torch.tensor([1.0, 5.0, 25.0])[:, None, None]  # of rows, which a mean over the batch would mix
    forwards = [
        {block: tuple(sizes * torch.randn(3, tokens, 16, generator=draws) for tokens in (4, 6)) for block in (1, 2, 3)}
        for _ in range(3)
    ]
    expected = []
    for step in (1, 2):
        for start, stop in bands:
            stored, true = ([f[stop][s] - f[start][s] for s in (0, 1)] for f in (forwards[0], forwards[step]))
            sigma = torch.full((3,), float(levels[step]))
            found = compensation((start, stop), stored, forwards[step][start], sigma)
            expected += [
                float((ours[row] - wanted[row]).square().sum() / wanted[row].square().sum())
                for ours, wanted in zip(found, true, strict=True)
                for row in range(3)
            ]
    loss = residual_loss(compensation, forwards, levels)
    assert float(loss) == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_it_measures_what_the_cache_would_add(transformer, forwards, noise, prompts):
    compensation = Compensation(16, [[BAND]], "input_residual_mlp")
    for parameter in compensation.parameters():
        nn.init.normal_(parameter, std=0.2)
    added: list[Streams] = []
    compensation.register_forward_hook(lambda module, args, output: added.append(output))
    cache = BlockCache(transformer, reuse_after_first([BAND], 2), compensation).attach()
    with torch.no_grad():
        sample_latents(transformer, noise, LEVELS, prompts, before_step=cache.begin_step)
        cache.detach()
        residual_loss(compensation, forwards, LEVELS)
    # the first step is the same with and without cache, and so is what enters the band in the second
    for by_cache, fitted in zip(*added, strict=True):
        torch.testing.assert_close(by_cache, fitted)


def test_a_linear_relation_is_found_by_minimising_the_loss():
    draws = torch.Generator().manual_seed(0)
    before, now = ([tuple(torch.randn(2, 20, 16, generator=draws) for _ in "ti") for _ in range(4)] for _ in "bn")
    now[3] = tuple(n + 0.5 * (b3 - b1) for n, b3, b1 in zip(now[1], before[3], before[1], strict=True))
    compensation = Compensation(16, [[BAND]], "linear")
    optimizer = torch.optim.LBFGS(compensation.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = residual_loss(compensation, [before, now], LEVELS)
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(1.0)  # half of the old residual is as much as the new one
    assert closure().item() < 1e-8
    for stream in (compensation.text, compensation.image):
        torch.testing.assert_close(stream["1_3"].up.weight.detach(), -0.5 * torch.eye(16), atol=1e-3, rtol=0)
