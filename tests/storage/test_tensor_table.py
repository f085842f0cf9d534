import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onex_distill.storage.tensor_table import TableWriter, TensorTable, copy_table
from support import DAMAGE, damage

ROWS = 23


def index_of(rows=ROWS):
    return pd.DataFrame({"text": [f"caption {i % 3}" for i in range(rows)], "seed": range(rows)})


def columns_of(rows=ROWS):
    generator = torch.Generator().manual_seed(0)
    return {
        "latent": torch.randn(rows, 2, 3, generator=generator),
        "embeds": torch.randn(rows, 4, generator=generator).bfloat16(),
        "image": torch.randint(256, (rows, 3, 2, 2), generator=generator, dtype=torch.uint8),
        "seconds": torch.rand(rows, generator=generator, dtype=torch.float64),
    }


def saved(folder, rows_per_shard=5, **changes):
    return TensorTable.write(folder, index_of(), columns_of() | changes, rows_per_shard)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("table") / "five")


def one_line(error):
    return len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("rows_per_shard", [1, 5, 23, 4096])
def test_a_table_comes_back_whole_whatever_its_shards(tmp_path, rows_per_shard):
    saved(tmp_path / "table", rows_per_shard)
    opened = TensorTable(tmp_path / "table")
    assert len(list((tmp_path / "table").glob("part-*"))) == -(-ROWS // rows_per_shard)
    assert len(opened) == ROWS
    pd.testing.assert_frame_equal(opened.index, index_of())
    for name, column in columns_of().items():
        assert torch.equal(opened.column(name), column)
        assert opened.column(name).dtype == column.dtype


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=60))
def test_rows_are_read_in_any_order_and_more_than_once(on_disk, rows):
    assert torch.equal(on_disk.read("latent", rows), columns_of()["latent"][rows])


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_rows_may_come_in_any_container(on_disk, kind):
    rows = [22, 0, 7, 7]
    assert torch.equal(on_disk.read("image", kind(rows)), columns_of()["image"][rows])


def test_a_row_that_is_not_there_is_an_error_and_not_another_row(on_disk):
    with pytest.raises(IndexError, match=f"rows {ROWS} to {ROWS} "):
        on_disk.read("latent", [ROWS])
    with pytest.raises(IndexError, match="rows -1 to -1 "):
        on_disk.read("latent", [-1])


def test_no_rows_are_an_empty_column(on_disk):
    assert on_disk.read("latent", []).shape == (0, 2, 3)


def test_a_copied_table_is_the_same_table(tmp_path, on_disk):
    copy_table(on_disk, tmp_path)
    copy = TensorTable(tmp_path)
    pd.testing.assert_frame_equal(copy.index, on_disk.index)
    assert torch.equal(copy.column("image"), on_disk.column("image"))
    assert copy.handle.fingerprint() == on_disk.handle.fingerprint()


def test_a_transposed_column_is_saved_by_value(tmp_path):
    column = torch.arange(12.0).reshape(4, 3).T
    table = TensorTable.write(tmp_path, pd.DataFrame({"i": range(3)}), {"x": column}, 2)
    assert torch.equal(table.column("x"), column)


def test_a_column_that_is_still_attached_to_a_graph_is_saved_by_value(tmp_path):
    column = torch.ones(3, 2, requires_grad=True) * 2
    table = TensorTable.write(tmp_path, pd.DataFrame({"i": range(3)}), {"x": column})
    assert torch.equal(table.column("x"), column.detach())


def test_rows_are_found_by_a_value_of_their_index(on_disk):
    assert on_disk.rows_where("text", "caption 1").tolist() == list(range(1, ROWS, 3))
    assert on_disk.rows_where("text", "nothing").tolist() == []


def test_a_handle_opens_the_same_table(on_disk):
    handle = type(on_disk.handle).model_validate_json(on_disk.handle.model_dump_json())
    assert torch.equal(handle.open().column("latent"), on_disk.column("latent"))


def test_a_fingerprint_follows_the_contents_and_not_the_place(tmp_path, on_disk):
    fingerprint = on_disk.handle.fingerprint()
    assert saved(tmp_path / "same").handle.fingerprint() == fingerprint
    image = columns_of()["image"]
    image[22, 0, 0, 0] ^= 1
    assert saved(tmp_path / "image", image=image).handle.fingerprint() != fingerprint
    renamed = index_of().rename(columns={"seed": "noise_seed"})
    assert TensorTable.write(tmp_path / "index", renamed, columns_of(), 5).handle.fingerprint() != fingerprint


def test_shards_may_be_written_in_any_order_and_one_by_one(tmp_path, on_disk):
    columns = columns_of()
    for number in (4, 0, 2, 1, 3):
        writer = TableWriter(tmp_path, ROWS, 5)
        assert not writer.has(number)
        rows = writer.rows_of(number)
        writer.write(number, {name: column[rows.start : rows.stop] for name, column in columns.items()})
        assert writer.has(number)
    table = writer.finish(index_of())
    assert torch.equal(table.column("embeds"), columns["embeds"])
    assert table.handle.fingerprint() == on_disk.handle.fingerprint()


def test_the_index_of_a_written_table_has_all_its_rows(tmp_path):
    writer = TableWriter(tmp_path, 2)
    writer.write(0, {"x": torch.zeros(2)})
    with pytest.raises(ValueError, match="the index has 23 rows, the table 2"):
        writer.finish(index_of())


def test_a_table_is_no_table_before_it_is_finished(tmp_path):
    TableWriter(tmp_path, 2).write(0, {"x": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"is no finished table .*; make it again") as error:
        TensorTable(tmp_path)
    assert one_line(error)


def test_the_callers_index_is_numbered_anew(tmp_path):
    index = index_of().iloc[[5, 3]]
    assert list(TensorTable.write(tmp_path, index, {"x": torch.zeros(2)}).index.index) == [0, 1]
    assert list(index.index) == [5, 3]


@settings(deadline=None, max_examples=30)
@given(batch_size=st.integers(1, ROWS + 5))
def test_batches_cover_every_row_once_and_in_order(on_disk, batch_size):
    batches = list(on_disk.batches(batch_size))
    assert [row for batch in batches for row in batch] == list(range(ROWS))
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_columns_must_be_as_long_as_the_index(tmp_path):
    with pytest.raises(ValueError, match="column 'x' has 3 rows, the index 2"):
        TensorTable.write(tmp_path, pd.DataFrame({"i": range(2)}), {"x": torch.zeros(3)})


def test_an_unknown_column_is_answered_with_the_known_ones(on_disk):
    with pytest.raises(KeyError, match=r"no column 'laten'.*'latent'"):
        on_disk.read("laten", [0])


@pytest.mark.parametrize("which", [0, 2, -1])
def test_a_missing_shard_is_found_when_the_table_is_opened(tmp_path, which):
    saved(tmp_path / "table")
    sorted((tmp_path / "table").glob("part-*"))[which].unlink()
    with pytest.raises(
        ValueError, match=r"should hold 5 shards but lacks part-0000\d.safetensors; make it again"
    ) as error:
        TensorTable(tmp_path / "table")
    assert one_line(error)


@pytest.mark.parametrize("keep", [4, 100])
def test_a_cut_shard_is_reported_in_one_line(tmp_path, keep):
    saved(tmp_path / "table")
    shard = tmp_path / "table" / "part-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:keep])
    opened = TensorTable(tmp_path / "table")
    with pytest.raises(ValueError, match=r"part-00001.safetensors is damaged .*; make the table again") as error:
        opened.read("latent", [0, 6])
    assert one_line(error)


def test_a_shard_of_something_else_is_reported_in_one_line(tmp_path):
    saved(tmp_path / "table")
    (tmp_path / "table" / "part-00000.safetensors").write_bytes(b"\x93NUMPY" * 100)
    with pytest.raises(ValueError, match="is damaged") as error:
        TensorTable(tmp_path / "table").column("latent")
    assert one_line(error)


def test_rows_of_whole_shards_are_still_read_beside_a_damaged_one(tmp_path):
    saved(tmp_path / "table")
    (tmp_path / "table" / "part-00001.safetensors").write_bytes(b"cut")
    opened = TensorTable(tmp_path / "table")
    assert torch.equal(opened.read("latent", [22, 4]), columns_of()["latent"][[22, 4]])


def swap(folder):
    first, second = folder / "part-00001.safetensors", folder / "part-00002.safetensors"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def lengthen(folder):
    path = folder / "table.json"
    path.write_text(path.read_text().replace('"rows_per_shard": 5', '"rows_per_shard": 4'))


def reorder(folder):
    index_of().iloc[::-1].reset_index(drop=True).to_parquet(folder / "index.parquet")


@pytest.mark.parametrize("change", [swap, lengthen, reorder])
def test_well_formed_files_that_belong_to_no_or_another_place_are_refused(tmp_path, change):
    saved(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=r"is (missing or )?damaged.*make .* again") as error:
        everything(TensorTable(tmp_path))
    assert one_line(error)


def test_a_missing_index_is_named(tmp_path):
    saved(tmp_path)
    (tmp_path / "index.parquet").unlink()
    with pytest.raises(ValueError, match=r"index\.parquet is missing or damaged; make the table again"):
        len(TensorTable(tmp_path).index)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"columns": [], "rows_per_shard": 4, "shards": 1}']
)
def test_a_description_of_something_else_is_no_finished_table(tmp_path, content):
    saved(tmp_path)
    (tmp_path / "table.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"is no finished table .*; make it again") as error:
        TensorTable(tmp_path)
    assert one_line(error)


def everything(table):
    return table.index, {name: table.column(name) for name in table.names}


FILES = ["index.parquet", "table.json", *(f"part-0000{number}.safetensors" for number in range(5))]


def unless_refused(read):
    """What ``read`` gives, or None when it refuses in one line."""
    try:
        return read()
    except ValueError as error:
        lines = str(error).splitlines()
    assert len(lines) == 1
    return None


@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from(FILES), how=DAMAGE, rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=4))
def test_damage_is_a_line_or_no_damage_but_never_other_data(tmp_path_factory, on_disk, name, how, rows):
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(on_disk.folder, folder, dirs_exist_ok=True)
    damage(folder / name, how)
    table = unless_refused(lambda: TensorTable(folder))
    if table is not None:
        columns = columns_of()
        assert (table.names, len(table)) == (sorted(columns), ROWS)
        index = unless_refused(lambda: table.index)
        assert index is None or index.equals(index_of())
        found = unless_refused(lambda: table.rows_where("text", "caption 1"))
        assert found is None or found.tolist() == list(range(1, ROWS, 3))
        for column, values in columns.items():
            some, whole = (unless_refused(lambda of=of, c=column: table.read(c, of)) for of in (rows, range(ROWS)))
            assert some is None or torch.equal(some, values[rows])
            assert whole is None or torch.equal(whole, values)
    shutil.rmtree(folder)
