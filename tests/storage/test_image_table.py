"""Tables of images: lossless, readable by other tools, the same bytes twice, damage found."""

import io
import json
import tarfile

import pandas as pd
import pytest
import torch
from PIL import Image

from onex_distill.storage.image_table import ImageTable, ImageWriter, join_tables


@pytest.fixture
def images():
    return torch.randint(0, 256, (5, 3, 6, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def write(folder, images, rows_per_shard=2) -> ImageTable:
    writer = ImageWriter(folder, len(images), rows_per_shard)
    for number in range(writer.shards):
        rows = writer.rows_of(number)
        part = images[rows.start : rows.stop]
        writer.write(number, {"image": part, "seconds": torch.arange(rows.start, rows.stop) / 2})
    return writer.finish(pd.DataFrame({"text": [f"caption {row}" for row in range(len(images))]}))


def test_rows_come_back_bit_for_bit_in_any_order(images, tmp_path):
    table = write(tmp_path, images)
    assert torch.equal(table.read([4, 0, 3]), images[[4, 0, 3]])
    assert torch.equal(torch.cat([table.read(rows) for rows in table.batches(3)]), images)
    assert table.index["seconds"].tolist() == [0, 0.5, 1, 1.5, 2]
    assert table.pictures([1])[0].size == (4, 6)


def test_shards_are_tars_of_png_and_json(images, tmp_path):
    write(tmp_path, images)
    with tarfile.open(tmp_path / "images-00001.tar") as archive:
        assert archive.getnames() == ["00000002.png", "00000002.json", "00000003.png", "00000003.json"]
        picture = Image.open(io.BytesIO(archive.extractfile("00000003.png").read()))
        assert json.loads(archive.extractfile("00000003.json").read()) == {"seconds": 1.5}
        assert picture.getpixel((1, 2)) == tuple(images[3, :, 2, 1].tolist())


def test_equal_images_are_equal_files(images, tmp_path):
    first, second = write(tmp_path / "a", images), write(tmp_path / "b", images)
    assert first.handle.fingerprint() == second.handle.fingerprint()
    images[2, 0, 0, 0] ^= 1
    assert write(tmp_path / "c", images).handle.fingerprint() != first.handle.fingerprint()


def test_finished_shards_are_known(images, tmp_path):
    writer = ImageWriter(tmp_path, 5, 2)
    writer.write(1, {"image": images[2:4]})
    assert [ImageWriter(tmp_path, 5, 2).has(number) for number in range(3)] == [False, True, False]


def test_tables_join_in_order(images, tmp_path):
    tables = [write(tmp_path / "a", images), write(tmp_path / "b", images.flip(0), rows_per_shard=3)]
    joined = join_tables(tables, pd.DataFrame({"method": ["a"] * 5 + ["b"] * 5}), tmp_path / "joined")
    assert torch.equal(joined.read(range(10)), torch.cat([images, images.flip(0)]))
    assert joined.index["method"].tolist() == ["a"] * 5 + ["b"] * 5


def test_damage_and_absence_are_one_line(images, tmp_path):
    table = write(tmp_path, images)
    shard = tmp_path / "images-00000.tar"
    content = bytearray(shard.read_bytes())
    content[content.index(b"IDAT") + 12] ^= 8
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"images-00000\.tar is damaged .*make the table again"):
        table.read([0, 1])
    shard.unlink()
    with pytest.raises(ValueError, match=r"lacks images-00000\.tar, one of 3 shards"):
        ImageTable(tmp_path)
    with pytest.raises(ValueError, match="is no finished table of images"):
        ImageTable(tmp_path / "nothing")


def test_several_sizes_cannot_be_one_tensor(tmp_path):
    writer = ImageWriter(tmp_path, 2, 2)
    writer.write_pictures(0, [Image.new("RGB", (3, 3)), Image.new("RGB", (4, 3))], {})
    table = writer.finish(pd.DataFrame({"text": ["a", "b"]}))
    with pytest.raises(ValueError, match=r"images of several sizes, \[\(3, 3\), \(4, 3\)\]"):
        table.read([0, 1])
    assert [picture.size for picture in table.pictures([1, 0])] == [(4, 3), (3, 3)]
