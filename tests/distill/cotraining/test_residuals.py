"""What fitting reads: samplings of their own captions and noise, each kept once and used once per epoch."""

import pandas as pd
import pytest
import torch
from torch import Tensor

from onex_distill.cache.fitting import edges, entering_streams
from onex_distill.distill.cotraining import residuals as sampling
from onex_distill.distill.cotraining.residuals import ResidualPool, Steps
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.sampling import sample_latents
from onex_distill.storage.tensor_table import TensorTable

FITTING = {"fitting_steps": 9, "fitting_batch_size": 2, "fitting_batches": 3}
Sampled = list[tuple[Tensor, PromptBatch]]


def numbered(number: int) -> Steps:
    """A batch of two rows and two steps whose numbers say where they are from."""
    rows = torch.tensor([10.0 * number, 10.0 * number + 1])[:, None, None]
    return [{1: (rows, rows + 100 * step), 3: (-rows, -rows)} for step in range(2)]


@pytest.fixture
def pool() -> ResidualPool:
    return ResidualPool(map(numbered, range(4)), 4, seed=7)


@pytest.fixture
def sampled(monkeypatch) -> Sampled:
    """The noise and the prompts of every sampling from now on."""
    seen: Sampled = []

    def sample(transformer, noise, levels, prompts):
        seen.append((noise.clone(), prompts))
        return sample_latents(transformer, noise, levels, prompts)

    monkeypatch.setattr(sampling, "sample_latents", sample)
    return seen


def test_an_epoch_uses_every_row_once_in_an_order_that_is_not_the_batches(pool):
    epochs = [torch.stack([pool.chosen(step, 2) for step in range(start, start + 4)]) for start in (0, 4)]
    for epoch in epochs:
        assert torch.equal(epoch.sort(0).values, torch.arange(4)[:, None].expand(4, 2))
    assert not torch.equal(*epochs)
    assert any(not torch.equal(epoch[:, 0], epoch[:, 1]) for epoch in epochs)
    assert torch.equal(pool.chosen(5, 2), pool.chosen(5, 2))


def test_rows_come_from_the_batches_that_are_chosen_and_keep_their_places(pool):
    steps = pool.rows(torch.tensor([3, 1]), slice(0, 2))
    assert [sorted(step) for step in steps] == [[1, 3]] * 2
    for step, streams in enumerate(steps):
        assert streams[1][0].flatten().tolist() == [30.0, 11.0]
        assert streams[1][1].flatten().tolist() == [30.0 + 100 * step, 11.0 + 100 * step]
        assert streams[3][0].flatten().tolist() == [-30.0, -11.0]
    assert pool.rows(torch.tensor([3, 1]), slice(1, 2))[0][1][0].flatten().tolist() == [11.0]


def test_every_batch_has_noise_of_its_own_and_none_of_it_is_a_references(build, batch, sampled):
    trainer = build("cotraining", **FITTING)
    trainer.sample_residuals()
    noises = [noise for noise, _ in sampled]
    assert [len(noise) for noise in noises] == [2] * 4  # three batches, and one that is held out
    rows = torch.cat([*noises, *(trainer.references.batch(step, 3).noise for step in range(8))])
    distances = torch.cdist(rows.flatten(1), rows.flatten(1))[:8]
    distances[torch.arange(8), torch.arange(8)] = torch.inf
    assert float(distances.min()) > 1  # of noise 256 wide, the nearest are about 20 apart
    for noise in noises:
        assert float(noise.std()) == pytest.approx(1, abs=0.1)
    trainer.sample_residuals()
    assert all(torch.equal(one, again) for (one, _), (again, _) in zip(sampled[:4], sampled[4:], strict=True))


def test_captions_are_of_the_training_split_and_those_held_out_are_the_references(build, inputs, sampled):
    embeddings = inputs.embeddings.open()
    split = ["reference", "train", "reference", "train"]
    columns = {name: embeddings.column(name) for name in embeddings.names}
    table = TensorTable.write(inputs.embeddings.path.parent / "split", embeddings.index.assign(split=split), columns)
    plan = pd.DataFrame({"prompt_row": [0, 2], "noise_seed": [40, 41]})
    images = {"image": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)}
    references = TensorTable.write(inputs.embeddings.path.parent / "of split", plan, images)
    changes = FITTING | {"fitting_batches": 9}
    build("cotraining", **changes, embeddings=table.handle, references=references.handle).sample_residuals()
    pooled = embeddings.read("pooled_prompt_embeds", range(4))
    rows = [{int((pooled - one).abs().sum(1).argmin()) for one in prompts.pooled} for _, prompts in sampled]
    assert set.union(*rows[:9]) == {1, 3}
    assert rows[9] <= {0, 2}


def test_the_pool_holds_what_plain_sampling_adds(build, sampled):
    trainer = build("cotraining", **FITTING, micro_batch_size=1)
    pool = trainer.sample_residuals().pool
    noise = torch.cat([noise for noise, _ in sampled[:6]]).reshape(3, 2, *sampled[0][0].shape[1:])
    prompts = [prompts for _, prompts in sampled[:6]]
    blocks = edges(trainer.compensation.bands)
    with torch.no_grad(), entering_streams(trainer.transformer, blocks) as streams:
        sample_latents(trainer.transformer, noise[2, 1:], trainer.path.levels, prompts[5])
    found = pool.rows(torch.tensor([0, 2]), slice(1, 2))
    assert sorted(blocks) == [1, 3]
    for step in range(2):
        for block in blocks:
            torch.testing.assert_close(found[step][block], streams[step][block])


def test_no_more_is_sampled_than_is_used(build, sampled):
    build("cotraining", **FITTING | {"fitting_steps": 2}).sample_residuals()
    assert len(sampled) == 2 + 1
