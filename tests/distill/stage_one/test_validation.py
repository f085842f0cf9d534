import math

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from onex_distill.distill.stage_one import trainer as stage_one
from onex_distill.distill.stage_one.trainer import StageOneTrainer
from onex_distill.distill.stage_one.validation import BestStudent, Validation, cells_per_side, latent_distance, pooled
from onex_distill.engine.launch import launch
from onex_distill.engine.run import Run
from onex_distill.flow.sigmas import step_sigmas
from onex_distill.models.noise import noise_from_seeds
from onex_distill.models.prompts import read_prompts
from onex_distill.models.sampling import sample_latents
from onex_distill.storage.tensor_table import TensorTable

WEIGHTS = "diffusion_pytorch_model.safetensors"
SIGMAS = step_sigmas(2, 3.0)


def latents(count: int, seed: int = 0):
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("images", "shape", "cells"),
    [(256, (8, 8, 8), 2), (256, (16, 128, 128), 2), (16, (4, 8, 8), 1), (63, (4, 8, 8), 1), (10**6, (4, 8, 8), 8)],
)
def test_the_grid_is_the_finest_with_four_images_a_feature(images, shape, cells):
    assert cells_per_side(images, shape) == cells
    assert shape[0] * cells**2 * 4 <= images


def test_too_few_images_are_refused():
    message = r"15 validation images are too few for latents of 4 channels; raise .* to 16 images or more"
    with pytest.raises(ValueError, match=message):
        cells_per_side(15, (4, 8, 8))


def test_pooling_takes_the_means_of_cells():
    x = latents(3)
    features = pooled(x, 2)
    assert features.shape == (3, 4 * 2 * 2)
    torch.testing.assert_close(features[1, 4 + 3], x[1, 1, 4:, 4:].mean())


def test_the_distance_of_pooled_latents_in_closed_form():
    features = pooled(latents(64), 1).double()
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5])
    assert latent_distance(features, features) == pytest.approx(0, abs=1e-8)
    assert latent_distance(features + shift, features) == pytest.approx(5.25, rel=1e-6)
    assert math.isnan(latent_distance(features * math.nan, features))


def test_a_student_that_samples_as_the_teacher_is_at_no_distance(transformer, prompt_tables, inputs, ranks, tmp_path):
    plan = inputs.validation.open().index
    noise = noise_from_seeds(plan["noise_seed"], (4, 8, 8))
    prompts = read_prompts(prompt_tables.prompts, plan["prompt_row"].to_numpy(), ranks.device)
    table = TensorTable.write(tmp_path / "t", plan, {"latent": sample_latents(transformer, noise, SIGMAS, prompts)})
    validation = Validation(table, prompt_tables.prompts, SIGMAS, 5, ranks)
    assert validation.distance(transformer) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("count", "rows"), [(1, 16), (3, 18), (5, 20)])
def test_every_rank_calls_the_network_equally_often(prompt_tables, inputs, ranks, monkeypatch, count, rows):
    own = []
    for index in range(count):
        monkeypatch.setattr(ranks, "count", count)
        monkeypatch.setattr(ranks, "index", index)
        validation = Validation(inputs.validation.open(), prompt_tables.prompts, SIGMAS, 4, ranks)
        own.append(validation._own_rows())
    together = torch.stack(own, 1).flatten()
    assert len(together) == rows
    assert together[:16].tolist() == list(range(16))


class Saves:
    """Offers numbered students, and reads which of them is kept."""

    def __init__(self, run: Run) -> None:
        self.run, self.best = run, BestStudent(run)
        run.folder.mkdir(exist_ok=True)

    def offer(self, finished: int, distance: float, mark: str = "") -> None:
        def save(folder):
            folder.mkdir()
            (folder / "student").write_text(f"{finished}{mark}")

        self.best.offer(finished, distance, save)

    def kept(self) -> list[str]:
        return sorted(path.read_text() for path in self.run.folder.glob("best-*/student"))

    def chosen(self, folder) -> str:
        self.best.copy_to(folder)
        return (folder / "student").read_text()


def test_the_first_of_the_lowest_is_kept(run, tmp_path):
    saves = Saves(run)
    for finished, distance in enumerate([math.nan, 3.0, 5.0, 2.0, 2.0, math.nan, 4.0], start=1):
        saves.offer(finished, distance)
    assert saves.kept() == ["4"]
    assert saves.chosen(tmp_path / "best") == "4"


def test_without_a_finite_distance_there_is_no_best(run, tmp_path):
    saves = Saves(run)
    saves.offer(2, math.nan)
    assert saves.kept() == []
    with pytest.raises(FloatingPointError, match="run has no best student: no validation distance is finite; lower"):
        saves.best.copy_to(tmp_path / "best")


def test_what_a_checkpoint_names_stays_until_the_checkpoint_goes(run):
    saves = Saves(run)
    for finished in (1, 2, 3):
        saves.offer(finished, 1 / finished)
    (run.folder / "step-00000003").mkdir()
    saves.offer(4, 0.1)
    assert saves.kept() == ["3", "4"]
    (run.folder / "step-00000003").rename(run.folder / "step-00000004")
    saves.offer(5, 0.2)
    assert saves.kept() == ["4"]


def test_a_run_that_went_back_forgets_what_came_after(run, tmp_path):
    """On an accelerator the second time need not be the first: what was best may not be found again."""
    saves = Saves(run)
    saves.offer(1, 5.0)
    (run.folder / "step-00000001").mkdir()
    state = saves.best.state_dict()
    for finished in (2, 3, 4):
        saves.offer(finished, 5.0 - finished)
    again = Saves(run)
    again.best.load_state_dict(state)
    again.offer(2, 6.0)
    assert again.kept() == ["1"]
    again.offer(3, 4.0, "again")
    assert again.kept() == ["1", "3again"]
    assert again.chosen(tmp_path / "best") == "3again"


@pytest.mark.parametrize("parametrization", ["full", "shared_backbone"])
def test_the_best_is_the_student_of_the_lowest_distance(jobs, ranks, tmp_path, parametrization):
    job = jobs("stage_one", tmp_path / "job", steps=8, parametrization=parametrization)
    result = launch(job)
    distances = pd.read_parquet(result / "losses.parquet").set_index("step")["validation_distance"].dropna()
    assert distances.index.tolist() == [1, 3, 5, 7]
    at = int(distances.idxmin())
    again = StageOneTrainer(job, Run(tmp_path / "again", {}, ranks))
    for step in range(at + 1):
        again.update(step)
    again.networks.save_student(tmp_path / "student")
    expected, found = load_file(tmp_path / "student" / WEIGHTS), load_file(result / "best" / WEIGHTS)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    with again.networks.averaged() as student:
        assert again.validation.distance(student) == pytest.approx(distances.min(), rel=1e-6)


@pytest.mark.parametrize("parametrization", ["full", "shared_backbone"])
def test_validation_changes_nothing_but_its_column(jobs, tmp_path, assert_same_result, parametrization):
    changes = {"parametrization": parametrization, "steps": 6}
    seen = launch(jobs("stage_one", tmp_path / "seen", **changes))
    unseen = launch(jobs("stage_one", tmp_path / "unseen", validation=None, **changes))
    assert not (unseen / "best").exists()
    assert not list((tmp_path / "unseen").glob("best-*"))
    losses = pd.read_parquet(seen / "losses.parquet").drop(columns="validation_distance")
    pd.testing.assert_frame_equal(losses, pd.read_parquet(unseen / "losses.parquet"), check_exact=True)
    first, second = (load_file(folder / "student" / WEIGHTS) for folder in (seen, unseen))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("at", [5, *(pytest.param(at, marks=pytest.mark.slow) for at in (3, 7))])
def test_a_resumed_run_ends_with_the_same_best(jobs, tmp_path, interrupt, assert_same_result, at):
    changes = {"steps": 8, "checkpoint_every": 3}
    whole = launch(jobs("stage_one", tmp_path / "whole", **changes))
    with interrupt(stage_one, at):
        launch(jobs("stage_one", tmp_path / "parts", **changes))
    parts = launch(jobs("stage_one", tmp_path / "parts", **changes))
    assert_same_result(whole, parts)
    assert (whole / "best" / WEIGHTS).read_bytes() == (parts / "best" / WEIGHTS).read_bytes()


def test_the_events_of_stage_one_hold_losses_and_grids(jobs, tmp_path, recorded):
    job = jobs("stage_one", tmp_path / "run")
    losses = pd.read_parquet(launch(job) / "losses.parquet")
    events = recorded(job.folder)
    assert set(events.Tags()["scalars"]) == set(losses.columns) - {"step"}
    assert [image.step for image in events.Images("grid")] == [1, 3]
    assert not list((job.folder / "result").rglob("*tfevents*"))
