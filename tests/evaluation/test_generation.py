import json
import logging

import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from onex_distill.cache.compensation import Compensation
from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
from onex_distill.engine.job import execute
from onex_distill.engine.launch import launch
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import STOP_FILE, partial_result
from onex_distill.errors import Interrupted
from onex_distill.evaluation import generation
from onex_distill.evaluation.generation import (
    GenerationJob,
    GenerationParams,
    TeacherParams,
    contact_sheet,
    wanted_images,
    warn_of_unknown_words,
)
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.frame import store_frame
from onex_distill.storage.model_folder import ModelFolder, save_model

PARAMS = GenerationParams(
    seed=7, images_per_caption=2, batch_size=3, nfe=None, num_inference_steps=None, size=None, teacher=None
)
TEXTS = ["the red solid circle", "a hollow blue square"]


@pytest.fixture
def student(tiny_teacher, tmp_path) -> ModelFolder:
    compensation = Compensation(16, (((1, 3),), ((2, 3),)), "residual_mlp")
    for parameter in compensation.parameters():
        nn.init.normal_(parameter, std=0.2)
    pipeline = FractionalStableDiffusion3Pipeline(
        **tiny_teacher.components, compensation=compensation, max_sequence_length=6
    )
    save_model(pipeline, tmp_path / "student")
    return ModelFolder(path=tmp_path / "student", class_name="onex_distill.FractionalStableDiffusion3Pipeline")


@pytest.fixture
def job(student, stored_teacher, compute, tmp_path):
    """``job(texts, name, **changes)`` generates in a folder of its own."""

    def make(texts=TEXTS, name="run", **changes) -> GenerationJob:
        captions = store_frame(pd.DataFrame({"text": texts}), tmp_path / f"{name}.parquet")
        return GenerationJob(
            folder=tmp_path / name,
            compute=compute,
            student=student,
            teacher=TeacherFolder(path=stored_teacher),
            captions=captions,
            params=PARAMS.model_copy(update=changes),
        )

    return make


def pixels(path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def nearly(one: bytes, other: bytes) -> bool:
    """Equal within a step of 1/255: rounding depends on the size of the batch."""
    return len(one) == len(other) and max(abs(a - b) for a, b in zip(one, other, strict=True)) <= 1


def test_every_image_names_its_caption_and_settings(job, student):
    folder = launch(job(nfe=1.75)) / "images"
    records = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [record["file_name"] for record in records] == [
        "00000-00.png",
        "00000-01.png",
        "00001-00.png",
        "00001-01.png",
    ]
    assert [record["text"] for record in records] == [TEXTS[0]] * 2 + [TEXTS[1]] * 2
    with Image.open(folder / "00001-01.png") as image:
        assert image.text == {
            "file_name": "00001-01.png",
            "text": TEXTS[1],
            "seed": str(records[3]["seed"]),
            "model": f"{student.path.parent.name}/student",
            "height": "32",
            "width": "32",
            "num_inference_steps": "2",
            "guidance_scale": "1.0",
            "nfe": "1.75",
        }
    pipeline = student.load()
    pipeline.set_progress_bar_config(disable=True)
    draws = torch.Generator().manual_seed(records[3]["seed"])
    assert nearly(pipeline(TEXTS[1], nfe=1.75, generator=draws).images[0].tobytes(), pixels(folder / "00001-01.png"))


def test_settings_that_are_left_out_are_written_too(job):
    folder = launch(job(teacher=TeacherParams(num_inference_steps=3, guidance_scale=2.0))) / "images"
    ours, theirs = (
        json.loads((place / "metadata.jsonl").read_text().splitlines()[0]) for place in (folder, folder / "teacher")
    )
    assert (ours["num_inference_steps"], ours["nfe"], ours["height"]) == (2, 1.5, 32)  # two of four blocks once
    assert (theirs["num_inference_steps"], theirs["guidance_scale"], theirs["nfe"]) == (3, 2.0, 6)
    assert ours["seed"] == theirs["seed"]


def test_an_image_does_not_change_with_what_is_made_beside_it(job):
    first = launch(job()) / "images"
    second = launch(job([*reversed(TEXTS), "the green striped cross"], "more", images_per_caption=3)) / "images"
    for ours, theirs in (("00000-01", "00001-01"), ("00001-00", "00000-00")):
        assert nearly(pixels(first / f"{ours}.png"), pixels(second / f"{theirs}.png"))
    seeds = [image.seed for image in wanted_images(TEXTS, PARAMS)]
    assert len(set(seeds)) == 4
    assert seeds != [image.seed for image in wanted_images(TEXTS, PARAMS.model_copy(update={"seed": 8}))]


def test_a_stopped_run_keeps_its_images_and_goes_on(job, monkeypatch, compute):
    expected = launch(job(name="whole")) / "images"
    stopped, calls = job(), []
    make_batch = generation._make_batch

    def counted(*arguments):
        calls.append(1)
        make_batch(*arguments)
        (stopped.folder / STOP_FILE).touch()

    monkeypatch.setattr(generation, "_make_batch", counted)
    with pytest.raises(Interrupted, match="3 of 4 images are written"):
        execute(stopped, stopped.identity(), Ranks(compute))
    kept = partial_result(stopped.folder) / "images" / "00000-00.png"
    before = kept.stat().st_mtime_ns
    (stopped.folder / STOP_FILE).unlink()
    monkeypatch.setattr(generation, "_make_batch", make_batch)
    images = launch(stopped) / "images"
    assert (images / "00000-00.png").stat().st_mtime_ns == before
    assert all(nearly(pixels(images / path.name), pixels(path)) for path in expected.glob("*.png"))


def test_size_steps_and_the_teacher_beside(job):
    teacher = TeacherParams(num_inference_steps=3, guidance_scale=2.0)
    folder = launch(job(size=(64, 32), num_inference_steps=1, teacher=teacher)) / "images"
    for place in (folder, folder / "teacher"):
        with Image.open(place / "00001-01.png") as image:
            assert image.size == (32, 64)
    assert pixels(folder / "00000-00.png") != pixels(folder / "teacher" / "00000-00.png")
    sheet = contact_sheet(folder)
    assert sheet.size == (4 * (96 + 4) + 4, 18 + 2 * (18 + 192 + 4) + 4)
    for left in (0, 200):  # student, and teacher
        assert min(low for low, _ in sheet.crop((left, 0, left + 100, 18)).getextrema()) < 64


def test_the_sheet_has_a_labelled_row_per_caption(job):
    folder = launch(job()) / "images"
    sheet = contact_sheet(folder)
    assert sheet.size == (2 * 100 + 4, 2 * (18 + 96 + 4) + 4)
    label = sheet.crop((0, 4, 204, 20))
    assert min(low for low, _ in label.getextrema()) < 64
    with Image.open(folder / "00001-01.png") as image:
        enlarged = image.convert("RGB").resize((96, 96), Image.Resampling.NEAREST)
    assert sheet.crop((104, 140, 200, 236)).tobytes() == enlarged.tobytes()


def test_words_that_no_training_caption_has_are_named_once(caplog):
    assert warn_of_unknown_words(["A red dog, a DOG", "red sunset"], ["a red circle"]) == ["dog", "sunset"]
    assert caplog.messages == [
        "No caption that the student was trained on has these words, which may mean nothing to it: dog, sunset."
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert warn_of_unknown_words(["Red circle"], ["a red circle"]) == []
    assert not caplog.messages
