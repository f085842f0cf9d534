import pandas as pd
import pytest
import torch

from onex_distill.distill.stage_two.references import OnlineReferences, References, StoredReferences
from onex_distill.engine.launch import launch
from onex_distill.engine.ranks import Ranks
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.noise import noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import decode_latents, sample_latents
from onex_distill.storage.tensor_table import TensorTable

SHAPE = (4, 8, 8)
LEVELS = step_sigmas(4, 3.0)
CPU = torch.device("cpu")


@pytest.fixture
def stored(inputs, ranks) -> StoredReferences:
    return StoredReferences(inputs.references.open(), inputs.embeddings.open(), SHAPE, 6, ranks)


@pytest.fixture
def online(inputs, ranks, tmp_path) -> OnlineReferences:
    """Captions 1 and 3 are the reference split."""
    embeddings = inputs.embeddings.open()
    index = embeddings.index.assign(split=["train", "reference", "train", "reference"])
    columns = {name: embeddings.column(name) for name in embeddings.names}
    table = TensorTable.write(tmp_path / "split", index, columns)
    network, autoencoder = inputs.teacher.transformer.load(), inputs.teacher.autoencoder.load()
    return OnlineReferences(network, autoencoder, LEVELS, table, SHAPE, 6, ranks)


def test_a_stored_batch_pairs_each_image_with_its_prompt_and_noise(stored, inputs):
    batch = stored.batch(step=3, count=4)
    table, images = inputs.references.open(), stored.images(batch)
    for row, source in enumerate(batch.rows.tolist()):
        index = table.index.iloc[source]
        expected = read_prompts(inputs.embeddings.open(), [index["prompt_row"]], CPU)
        assert torch.equal(batch.noise[row], noise_from_seeds([index["noise_seed"]], SHAPE)[0])
        assert torch.equal(batch.prompts.pooled[row], expected.pooled[0])
        assert torch.equal(images[row], table.read("image", [source])[0].float() / 255)


def test_an_online_batch_is_what_the_reference_generator_makes_of_it(online):
    batch = online.batch(step=3, count=8)
    assert set(batch.rows.tolist()) == {1, 3}
    assert torch.equal(batch.prompts.pooled, read_prompts(online.embeddings, batch.rows, CPU).pooled)
    latents = sample_latents(online.transformer, batch.noise, LEVELS, batch.prompts)
    images = online.images(batch)
    assert not images.requires_grad
    torch.testing.assert_close(images, decode_latents(online.autoencoder, latents).detach())


@pytest.mark.parametrize("kind", ["stored", "online"])
def test_a_batch_is_a_function_of_seed_and_step(kind, request):
    references: References = request.getfixturevalue(kind)

    def noise(step: int, seed: int = 6) -> torch.Tensor:
        references.seed = seed
        return references.batch(step, 16).noise

    assert torch.equal(noise(3), noise(3))
    assert not torch.equal(noise(3), noise(4))
    assert not torch.equal(noise(3), noise(3, seed=7))


@pytest.mark.parametrize("kind", ["stored", "online"])
def test_ranks_share_a_batch(kind, request, monkeypatch):
    references: References = request.getfixturevalue(kind)
    whole = references.batch(2, 4)
    monkeypatch.setattr(Ranks, "share", lambda self, total: slice(1, 3))
    part = references.batch(2, 4)
    assert torch.equal(part.noise, whole.noise[1:3])
    assert torch.equal(part.rows, whole.rows[1:3])
    assert torch.equal(references.rows(2, 4), whole.rows)


def test_a_run_makes_its_references_online(jobs, with_reference_split, tmp_path):
    job = jobs("stage_two", tmp_path / "run", embeddings=with_reference_split)
    job = job.model_copy(update={"params": job.params.model_copy(update={"references": "online"})})
    result = launch(job)
    assert pd.read_parquet(result / "losses.parquet")["discriminator_loss"].notna().any()
