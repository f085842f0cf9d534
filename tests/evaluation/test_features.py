"""Features of a table of images: one decode per image, kept shards, missing networks, distinct names."""

import pandas as pd
import pytest
import torch

from onex_distill.engine.run import STOP_FILE
from onex_distill.errors import Interrupted
from onex_distill.evaluation import pixel_network
from onex_distill.evaluation.features import ScorersParams, extract_features, networks_of
from onex_distill.storage.image_table import ImageTable, ImageWriter

PIXELS = {"kind": "pixels", "name": "pixels"}


@pytest.fixture
def images(tmp_path):
    writer = ImageWriter(tmp_path / "images", 7, 3)
    pixels = torch.randint(0, 256, (7, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for number in range(writer.shards):
        rows = writer.rows_of(number)
        writer.write(number, {"image": pixels[rows.start : rows.stop]})
    return writer.finish(pd.DataFrame({"prompt_row": range(7), "text": ["a solid red circle"] * 7}))


def scorers(tmp_path, *networks):
    return ScorersParams.model_validate({"networks": networks, "folder": tmp_path / "weights", "batch_size": 2})


@pytest.fixture
def decoded(monkeypatch):
    """Rows in the order in which they were decoded."""
    rows: list[int] = []
    read = ImageTable.pictures

    def counting(self, wanted):
        rows.extend(wanted)
        return read(self, wanted)

    monkeypatch.setattr(ImageTable, "pictures", counting)
    return rows


def test_every_image_is_decoded_once_for_all_networks(images, tmp_path, compute, decoded):
    networks = (PIXELS, {**PIXELS, "name": "again"})
    table = extract_features(images.handle, scorers(tmp_path, *networks), compute, tmp_path / "run")
    assert decoded == list(range(7))
    assert torch.equal(table.column("pixels.contrast"), table.column("again.contrast"))
    assert set(networks_of(table)) == {"pixels", "again"}


def test_a_missing_network_is_described_and_the_others_are_made(images, tmp_path, compute):
    shapes = {"kind": "shapes", "name": "shapes", "location": str(tmp_path / "nowhere")}
    table = extract_features(images.handle, scorers(tmp_path, shapes, PIXELS), compute, tmp_path / "run")
    assert table.names == ["pixels.contrast", "pixels.saturation", "row"]
    assert "config.json is missing" in networks_of(table)["shapes"]["missing"]


def test_a_stopped_run_keeps_its_shards(images, tmp_path, compute, decoded, monkeypatch):
    measure = pixel_network.contrast

    def stopping(tensor):
        (tmp_path / "run" / STOP_FILE).touch()
        return measure(tensor)

    monkeypatch.setattr(pixel_network, "contrast", stopping)
    with pytest.raises(Interrupted, match="1 of 4 batches are kept"):
        extract_features(images.handle, scorers(tmp_path, PIXELS), compute, tmp_path / "run")
    monkeypatch.setattr(pixel_network, "contrast", measure)
    extract_features(images.handle, scorers(tmp_path, PIXELS), compute, tmp_path / "run")
    assert decoded == list(range(7))


def test_two_networks_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two networks are called 'pixels'"):
        scorers(tmp_path, PIXELS, PIXELS)
