"""Folders of images with captions: read as people have them, refused in one line when something is amiss."""

import json

import pandas as pd
import pytest
from PIL import Image

from onex_distill.evaluation.anything.folders import read_folder, store_folder
from onex_distill.evaluation.anything.params import PipelineParams, ScoreParams
from onex_distill.evaluation.anything.pipelines import open_pipeline


@pytest.fixture
def folder(tmp_path):
    """Three images of two captions."""
    home = tmp_path / "mine"
    home.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number * 50, 0, 0)).save(home / f"{number}.png")
    rows = [{"file_name": f"{number}.png", "text": f"caption {number % 2}"} for number in range(3)]
    (home / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return home


def test_captions_are_read_in_three_forms(folder):
    paths, index = read_folder(folder, False)
    assert [path.name for path in paths] == ["0.png", "2.png", "1.png"]  # images of one caption stand together
    assert index["prompt_row"].tolist() == [0, 0, 1]
    assert index["text"].tolist() == ["caption 0", "caption 0", "caption 1"]
    assert index["method"].tolist() == ["mine"] * 3
    pd.read_json(folder / "metadata.jsonl", lines=True).to_csv(folder / "metadata.csv", index=False)
    (folder / "metadata.jsonl").unlink()
    pd.testing.assert_frame_equal(read_folder(folder, False)[1], index)
    (folder / "metadata.csv").unlink()
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"caption {number % 2}\n")
    pd.testing.assert_frame_equal(read_folder(folder, False)[1], index)


def test_a_text_file_without_an_image_is_named(folder):
    (folder / "metadata.jsonl").unlink()
    for number in range(4):
        (folder / f"{number}.txt").write_text("caption")
    with pytest.raises(ValueError, match=r"holds 1 captions without an image, the first is 3\.txt"):
        read_folder(folder, False)


def test_a_folder_becomes_a_table_shard_by_shard(folder, tmp_path):
    table = store_folder(folder, False, 2, tmp_path / "table")
    assert [picture.getpixel((0, 0))[0] for picture in table.pictures([0, 1, 2])] == [0, 100, 50]


def test_files_that_cannot_be_read_are_named_and_left_out_only_when_asked(folder, caplog):
    content = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"1 of 3 images of .*mine cannot be read: 1\.png; .*skip_unreadable=true"):
        read_folder(folder, False)
    paths, index = read_folder(folder, True)
    assert [path.name for path in paths] == ["0.png", "2.png"]
    assert len(index) == 2
    assert "1 images of" in caplog.text


def remove_caption(folder):
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    (folder / "metadata.jsonl").write_text("\n".join(lines[:2]))


def change_size(folder):
    Image.new("RGB", (9, 8)).save(folder / "2.png")


def change_mode(folder):
    Image.new("RGBA", (8, 8)).save(folder / "2.png")


def rename_column(folder):
    (folder / "metadata.jsonl").write_text('{"file": "0.png", "text": "a"}')


def remove_all(folder):
    for path in folder.glob("*.png"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_caption, r"holds 1 images without a caption, the first is 2\.png"),
        (lambda folder: (folder / "2.png").unlink(), r"holds 1 captions without an image, the first is 2\.png"),
        (change_size, r"differ: 0\.png is 8 x 8 RGB, 2\.png 9 x 8 RGB"),
        (change_mode, r"differ: 0\.png is 8 x 8 RGB, 2\.png 8 x 8 RGBA"),
        (rename_column, r"metadata\.jsonl has no column 'file_name'; found file, text"),
        (remove_all, r"holds no image"),
    ],
)
def test_what_is_amiss_is_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ValueError, match=message) as error:
        read_folder(folder, False)
    assert "\n" not in str(error.value)


def params(**changes):
    pipeline = {"name": "one", "source": "x", "steps": 2, "guidance_scale": 1.0, "scheduler": None}
    fields = {"images": "a/b", "pipelines": (), "captions": None, "images_per_caption": 1, "seed": 0, "batch_size": 2}
    fields |= {"reference": None, "skip_unreadable": False}
    return ScoreParams.model_validate(fields | changes | ({"pipelines": [pipeline]} if "captions" in changes else {}))


def test_one_folder_or_several_and_names_of_their_own():
    assert params().names == ["b"]
    assert params(images=["a/b", "c"], captions="captions.txt").names == ["b", "c", "one"]
    with pytest.raises(ValueError, match="two rows would be called 'b'"):
        params(images=["a/b", "c/b"])
    with pytest.raises(ValueError, match=r"score\.pipelines are sampled on score\.captions"):
        params(captions=None)


def test_a_pipeline_opens_with_another_scheduler(tiny_teacher_folder):
    fields = {"name": "one", "source": str(tiny_teacher_folder), "steps": 2, "guidance_scale": 1.0}
    pipeline = open_pipeline(PipelineParams(**fields, scheduler="FlowMatchHeunDiscreteScheduler"))
    assert type(pipeline.scheduler).__name__ == "FlowMatchHeunDiscreteScheduler"
    with pytest.raises(ValueError, match="diffusers has no scheduler 'Eulr'"):
        open_pipeline(PipelineParams(**fields, scheduler="Eulr"))


def test_a_folder_of_something_else_is_refused_in_one_line(folder):
    wrong = PipelineParams(name="one", source=str(folder), steps=None, guidance_scale=None, scheduler=None)
    with pytest.raises(ValueError, match="mine cannot be opened as a diffusers pipeline") as error:
        open_pipeline(wrong)
    assert "\n" not in str(error.value)
