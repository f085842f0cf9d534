import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onex_distill.storage.tensor_table import TensorTable

ROWS = 23


def make_table(rows=ROWS):
    generator = torch.Generator().manual_seed(0)
    index = pd.DataFrame({"text": [f"caption {i}" for i in range(rows)], "seed": range(rows)})
    columns = {
        "latent": torch.randn(rows, 2, 3, generator=generator),
        "embeds": torch.randn(rows, 4, generator=generator).bfloat16(),
        "image": torch.randint(256, (rows, 3, 2, 2), generator=generator, dtype=torch.uint8),
    }
    return TensorTable(index, columns)


def saved(folder, table=None, rows_per_shard=5):
    folder.mkdir(exist_ok=True)
    (table or make_table()).save(folder, rows_per_shard=rows_per_shard)
    return TensorTable.open(folder)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("table") / "five")


def one_line(error):
    return len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("rows_per_shard", [1, 5, 23, 4096])
def test_a_table_comes_back_whole_whatever_its_shards(tmp_path, rows_per_shard):
    table = make_table()
    opened = saved(tmp_path / "table", table, rows_per_shard)
    assert len(list((tmp_path / "table").glob("part-*"))) == -(-ROWS // rows_per_shard)
    pd.testing.assert_frame_equal(opened.index, table.index)
    for name in ("latent", "embeds", "image"):
        assert torch.equal(opened.column(name), table.column(name))
        assert opened.column(name).dtype == table.column(name).dtype


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=60))
def test_rows_are_read_in_any_order_and_more_than_once(on_disk, rows):
    table = make_table()
    assert torch.equal(on_disk.read("latent", rows), table.column("latent")[rows])


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_rows_may_come_in_any_container(on_disk, kind):
    rows = [22, 0, 7, 7]
    assert torch.equal(on_disk.read("image", kind(rows)), make_table().column("image")[rows])


def test_a_row_that_is_not_there_is_an_error_and_not_another_row(on_disk):
    with pytest.raises(IndexError):
        on_disk.read("latent", [ROWS])
    with pytest.raises(IndexError):
        make_table().read("latent", [ROWS])


def test_selected_rows_carry_their_index_and_their_tensors(on_disk):
    rows = [20, 3, 3]
    chosen = on_disk.select(rows)
    assert chosen.index["seed"].tolist() == rows
    assert list(chosen.index.index) == [0, 1, 2]
    assert torch.equal(chosen.column("embeds"), on_disk.read("embeds", rows))


def test_a_selection_survives_another_round_trip(tmp_path, on_disk):
    chosen = on_disk.select(np.array([22, 1, 14]))
    opened = saved(tmp_path / "selection", chosen, 2)
    pd.testing.assert_frame_equal(opened.index, chosen.index)
    assert torch.equal(opened.column("latent"), chosen.column("latent"))


def test_a_table_on_disk_can_be_saved_again_with_other_shards(tmp_path, on_disk):
    opened = saved(tmp_path / "again", on_disk, 4)
    assert torch.equal(opened.column("image"), on_disk.column("image"))


def test_a_transposed_column_is_saved_by_value(tmp_path):
    column = torch.arange(12.0).reshape(4, 3).T
    table = TensorTable(pd.DataFrame({"i": range(3)}), {"x": column})
    assert torch.equal(saved(tmp_path / "table", table, 2).column("x"), column)


@settings(deadline=None, max_examples=30)
@given(batch_size=st.integers(1, ROWS + 5))
def test_batches_cover_every_row_once_and_in_order(batch_size):
    batches = list(make_table().batches(batch_size))
    assert [row for batch in batches for row in batch] == list(range(ROWS))
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_columns_must_be_as_long_as_the_index():
    with pytest.raises(ValueError, match="column 'x' has 3 rows, the index 2"):
        TensorTable(pd.DataFrame({"i": range(2)}), {"x": torch.zeros(3)})


def test_an_unknown_column_is_answered_with_the_known_ones(on_disk):
    with pytest.raises(KeyError, match=r"no column 'laten'.*'latent'"):
        on_disk.read("laten", [0])


@pytest.mark.parametrize("which", [0, 2, -1])
def test_a_missing_shard_is_found_when_the_table_is_opened(tmp_path, which):
    saved(tmp_path / "table")
    sorted((tmp_path / "table").glob("part-*"))[which].unlink()
    with pytest.raises(ValueError, match="should hold 5 shards but holds 4; make it again") as error:
        TensorTable.open(tmp_path / "table")
    assert one_line(error)


@pytest.mark.parametrize("keep", [4, 100])
def test_a_cut_shard_is_reported_in_one_line(tmp_path, keep):
    saved(tmp_path / "table")
    shard = tmp_path / "table" / "part-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:keep])
    opened = TensorTable.open(tmp_path / "table")
    with pytest.raises(ValueError, match=r"part-00001.safetensors is damaged .*; make the table again") as error:
        opened.read("latent", [0, 6])
    assert one_line(error)


def test_a_shard_of_something_else_is_reported_in_one_line(tmp_path):
    saved(tmp_path / "table")
    (tmp_path / "table" / "part-00000.safetensors").write_bytes(b"\x93NUMPY" * 100)
    with pytest.raises(ValueError, match="is damaged") as error:
        TensorTable.open(tmp_path / "table").column("latent")
    assert one_line(error)


def test_rows_of_whole_shards_are_still_read_beside_a_damaged_one(tmp_path):
    saved(tmp_path / "table")
    (tmp_path / "table" / "part-00001.safetensors").write_bytes(b"cut")
    opened = TensorTable.open(tmp_path / "table")
    assert torch.equal(opened.read("latent", [22, 4]), make_table().column("latent")[[22, 4]])
