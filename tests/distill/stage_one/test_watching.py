from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.functional import pil_to_tensor

from onex_distill.distill.stage_one.watching import SIGMA_BINS, SampleGrid, WatchParams, by_sigma, grid_diversity
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.storage.tensor_table import TensorTable


def test_a_bins_mean_is_the_quotient_of_its_columns():
    values, sigma = torch.tensor([1.0, 3.0, 10.0]), torch.tensor([0.1, 0.2, 1.0])
    columns = by_sigma("gap", values, sigma)
    assert columns["gap_0"] / columns["gap_share_0"] == pytest.approx(2.0)
    assert columns[f"gap_{SIGMA_BINS - 1}"] / columns[f"gap_share_{SIGMA_BINS - 1}"] == pytest.approx(10.0)
    assert columns["gap_1"] == columns["gap_share_1"] == 0.0
    assert sum(columns[f"gap_{number}"] for number in range(SIGMA_BINS)) == pytest.approx(values.mean().item())


def test_diversity_is_the_mean_distance_within_prompts():
    latents = torch.zeros(4, 1, 1, 1)
    latents[1], latents[2], latents[3] = 2.0, 100.0, 104.0
    assert grid_diversity(latents, 2) == pytest.approx((2 + 4) / 2)


@pytest.fixture
def grid(prompt_tables, inputs, run) -> SampleGrid:
    params = WatchParams(every=2, prompts=2, images=2)
    rows, sigmas = np.array([3, 1, 0]), step_sigmas(2, 3.0)
    return SampleGrid(params, prompt_tables.prompts, rows, sigmas, inputs.teacher.autoencoder, run)


def test_the_grid_is_the_same_whenever_it_is_sampled(grid, transformer, tmp_path):
    first = grid.sample(transformer, (4, 8, 8), 1)
    assert grid.sample(transformer, (4, 8, 8), 3) == first > 0
    grid.write(tmp_path / "table")
    table = TensorTable(tmp_path / "table")
    assert table.index["step"].tolist() == [2] * 4 + [4] * 4
    assert table.index["prompt_row"].tolist() == [3, 3, 1, 1] * 2
    assert torch.equal(table.read("latent", range(4)), table.read("latent", range(4, 8)))
    assert [grid.params.is_due(step, 5) for step in range(5)] == [False, True, False, True, True]


def test_falling_diversity_is_warned_of(grid, transformer, caplog):
    grid.sample(transformer, (4, 8, 8), 1)
    assert not caplog.messages

    def collapsed(hidden_states, **inputs):
        return (hidden_states - 1e-3 * hidden_states,)  # nearly the same image from any noise

    grid.sample(collapsed, (4, 8, 8), 3)
    assert "run: after step 4 the fixed grid has" in caplog.text
    assert "lower guidance.alpha" in caplog.text


def test_the_grid_is_drawn_into_the_events(grid, transformer, run, recorded):
    with run.recording(0):
        grid.sample(transformer, (4, 8, 8), 1)
        grid.sample(lambda hidden_states, **inputs: (hidden_states * float("nan"),), (4, 8, 8), 3)
    first, second = recorded(run.folder).Images("grid")
    assert (first.step, second.step) == (1, 3)
    image = grid.draw(load_file(run.folder / "grid/step-00000002.safetensors")["latent"])
    assert image.shape == (3, 2 * (32 + 2) + 2, 2 * (32 + 2) + 2)
    shown = pil_to_tensor(Image.open(BytesIO(first.encoded_image_string)))
    assert torch.equal(shown, (image * 255).to(torch.uint8))


def test_rank_0_alone_decodes(grid, ranks, inputs, prompt_tables, run, monkeypatch):
    monkeypatch.setattr(ranks, "index", 1)
    rows, sigmas = np.array([3, 1]), step_sigmas(2, 3.0)
    other = SampleGrid(grid.params, prompt_tables.prompts, rows, sigmas, inputs.teacher.autoencoder, run)
    assert other.autoencoder is None
