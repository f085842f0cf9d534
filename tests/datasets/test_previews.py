import base64
import io
import json

import pandas as pd
import torch
from kedro.io.core import Version
from PIL import Image

from onex_distill.datasets import (
    CsvTableDataset,
    DocumentDataset,
    GeneratedImagesDataset,
    ImageTableDataset,
    LatentTableDataset,
    LossesDataset,
    ModelFolderDataset,
    RunsFolderDataset,
    TableDataset,
)
from onex_distill.datasets.previews import captions_of, pictures_of
from onex_distill.shapes.networks import ShapesReader
from onex_distill.storage.image_table import ImageWriter
from onex_distill.storage.records import NodeRecord, RunRecord, write_record
from onex_distill.storage.tensor_table import TensorTable

VERSION = "2026-01-01T00.00.00.000Z"


def shown(preview):
    return Image.open(io.BytesIO(base64.b64decode(preview)))


def record(**values):
    empty = {"env": "test", "command_line": {}, "parameters": {}, "machine": {}, "seconds": 5.0, "nodes": {}}
    made = {"packages": {"torch": "2.0"}, "commit": "abc123", "started": "today", "status": "finished"}
    return RunRecord(**{"version": VERSION, "pipelines": ("distill",), **empty, **made, **values})


def test_tables_are_rounded_and_what_is_missing_is_empty(tmp_path):
    frame = pd.DataFrame({"fid": [175.61234, float("nan")], "method": ["a", "b"], "nfe": [2, 56]})
    for kind, name in ((TableDataset, "t.parquet"), (CsvTableDataset, "t.csv")):
        dataset = kind(
            filepath=(tmp_path / name).as_posix(), **({"save_args": {"index": False}} if "csv" in name else {})
        )
        dataset.save(frame)
        assert dataset.preview(nrows=2)["data"] == [[175.6, "a", 2], ["", "b", 56]]
        assert len(dataset.preview(nrows=1)["data"]) == 1
        json.dumps(dataset.preview())


def test_losses_are_a_line_each(tmp_path):
    dataset = LossesDataset(filepath=(tmp_path / "losses.parquet").as_posix())
    dataset.save(
        pd.DataFrame({"step": [1, 2], "student_loss": [0.5, 0.25], "fake_score_loss": [1.0, None], "lr": [1, 1]})
    )
    traces = {trace["name"]: trace for trace in dataset.preview()["data"]}
    points = {name: list(zip(trace["x"], trace["y"], strict=True)) for name, trace in traces.items()}
    assert points == {"student_loss": [(1, 0.5), (2, 0.25)], "fake_score_loss": [(1, 1.0)]}
    assert dataset.preview()["layout"]["title"]["text"] == "Losses"


def test_latents_become_pictures_of_their_main_components():
    left, right = torch.zeros(8), torch.ones(8)
    latents = torch.stack([left, right])[:, :, None, None].expand(2, 8, 4, 4)
    dark, light = pictures_of(latents + 0.01 * torch.randn(2, 8, 4, 4))
    assert dark.size == light.size == (4, 4)
    difference = abs(sum(dark.getpixel((1, 1))) - sum(light.getpixel((1, 1))))
    assert difference > 150  # what differs most is seen
    image = torch.tensor([1.0, 0.0, 0.5])[None, :, None, None].expand(1, 3, 2, 2)
    assert pictures_of(image)[0].getpixel((0, 0)) == (255, 0, 127)


def test_a_table_of_latents_shows_eight_captions(tmp_path):
    index = pd.DataFrame({"text": [f"caption {row // 2}" for row in range(20)]})
    table = TensorTable.write(tmp_path / "run", index, {"latent": torch.randn(20, 4, 8, 8)})
    dataset = LatentTableDataset(filepath=(tmp_path / "table").as_posix())
    dataset.save(table)
    two, eight = (shown(dataset.preview(images=count)) for count in (2, 8))
    assert two.width < eight.width
    assert two.height < eight.height
    assert captions_of(index.loc[[0, 2]]) == ["caption 0", "caption 1"]
    assert captions_of(pd.DataFrame({"prompt_row": [3], "step": [40]})) == ["step 40, row 3"]


def test_samples_show_every_caption_once(tmp_path):
    writer = ImageWriter(tmp_path / "run", 4, 4)
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    images[2:, 0] = 255
    writer.write(0, {"image": images})
    dataset = ImageTableDataset(filepath=(tmp_path / "samples").as_posix())
    dataset.save(writer.finish(pd.DataFrame({"text": ["a", "a", "b", "b"]})))
    sheet = shown(dataset.preview())
    colours = {colour for _, colour in sheet.convert("RGB").getcolors(100_000)}
    assert {(0, 0, 0), (255, 0, 0)} <= colours
    assert shown(dataset.preview(images=1)).width < sheet.width


def test_generated_images_are_shown_with_their_captions(tmp_path):
    folder = tmp_path / "generated"
    folder.mkdir()
    Image.new("RGB", (8, 8), "lime").save(folder / "0.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "a lime square"}) + "\n")
    sheet = shown(GeneratedImagesDataset(filepath=folder.as_posix()).preview())
    assert (0, 255, 0) in {colour for _, colour in sheet.getcolors(100_000)}


def test_a_model_is_a_card_with_the_run_that_made_it(tmp_path):
    made = NodeRecord(
        inputs={"teacher": None, "prompts": VERSION, "runs": None}, outputs={"a.model": VERSION}, seconds=3
    )
    write_record(record(nodes={"train": made}), tmp_path)
    path = tmp_path / "06_models" / "a_model"
    name = "onex_distill.shapes.networks.ShapesReader"
    dataset = ModelFolderDataset(filepath=path.as_posix(), class_name=name, version=Version(None, VERSION))
    dataset.save(ShapesReader(channels=(8, 8), feature_dim=4))
    text = dataset.preview().replace("\u02cd", "_")  # kedro viz makes italics of underscores
    assert "_" not in dataset.preview()
    count = sum(parameter.numel() for parameter in ShapesReader(channels=(8, 8), feature_dim=4).state_dict().values())
    for part in (
        name,
        f"{count:,}",
        VERSION,
        "distill (test)",
        "abc123",
        "torch 2.0",
        "train, 3 s",
        f"prompts {VERSION}",
    ):
        assert part in text, part
    assert "runs" not in text.partition("made from")[2]


def test_the_runs_folder_lists_what_was_run(tmp_path):
    write_record(record(), tmp_path)
    write_record(record(version="2026-02-02T00.00.00.000Z", status="failed: a|b"), tmp_path)
    table = RunsFolderDataset(filepath=(tmp_path / "06_models/runs").as_posix()).preview()
    assert [row[0] for row in table["data"]] == ["2026-02-02T00.00.00.000Z", VERSION]
    assert table["columns"] == ["version", "pipelines", "env", "commit", "seconds", "status"]


def test_a_page_is_shown_by_its_body_and_a_text_as_it_is(tmp_path):
    dataset = DocumentDataset(filepath=(tmp_path / "page.html").as_posix())
    dataset.save(
        "<html><head><style>h1 {}</style></head>"
        "<body class='x'>\n<style>p {}</style>\n\n<h1>Verdict</h1>\n</body></html>"
    )
    assert dataset.preview() == "<h1>Verdict</h1>"
    dataset.save("| a |\n|---|")
    assert dataset.preview() == "| a |\n|---|"
