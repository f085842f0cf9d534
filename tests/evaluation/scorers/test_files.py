import http.server
import logging
import pickle
import threading
from functools import partial

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file, save_file

from onex_distill.evaluation.scorers import weights
from onex_distill.evaluation.scorers.dinov2 import Dinov2Params
from onex_distill.evaluation.scorers.files import convert_files, fetch_files
from onex_distill.evaluation.scorers.lpips import LpipsParams
from onex_distill.evaluation.scorers.states import convert_pickle, read_state
from onex_distill.evaluation.scorers.weights import File, Source, fetch, find
from onex_distill.parameters import ParameterError
from tiny_scorers import local, sha256_of


@pytest.fixture
def server(tmp_path):
    """What is below tmp_path/served, by HTTP."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def _network(backbone, heads):
    return LpipsParams(name="lpips", net="alex", backbone=backbone, heads=heads)


def test_an_address_is_fetched_verified_and_converted(tmp_path, server):
    served, url = server
    torch.save({"features.0.weight": torch.arange(6.0)}, served / "alexnet.pth")
    digest = sha256_of(served / "alexnet.pth")
    file = File(name="alexnet.safetensors", pickle="alexnet.pth", pickle_sha256=digest[:8])
    backbone = Source(hub="url", location=url, files=(file,))
    save_file({"lin0.model.1.weight": torch.ones(1)}, tmp_path / "heads.safetensors")
    network, root = _network(backbone, local(tmp_path, "heads.safetensors")), tmp_path / "scorers"

    assert "fetch_scorers` downloads it" in find(backbone, root)
    table = fetch_files([network], root)
    assert table["state"].tolist() == ["pickle", "present"]
    assert "convert_scorers` makes it from alexnet.pth" in find(backbone, root)
    table = convert_files([network], root)
    assert table["state"].tolist() == ["present", "present"]
    folder = find(backbone, root)
    assert load_file(folder / "alexnet.safetensors")["features.0.weight"].tolist() == list(range(6))

    made = (folder / "alexnet.safetensors").stat().st_mtime_ns
    (served / "alexnet.pth").unlink()
    fetch_files([network], root)
    convert_files([network], root)
    assert (folder / "alexnet.safetensors").stat().st_mtime_ns == made

    save_file({"features.0.weight": torch.zeros(6)}, folder / "alexnet.safetensors")
    with pytest.raises(ValueError, match=r"alexnet\.safetensors has SHA-256 .* remove it and fetch it again"):
        find(backbone, root)


def test_another_file_at_the_address_is_refused(tmp_path, server):
    served, url = server
    (served / "model.safetensors").write_bytes(b"other")
    source = Source(hub="url", location=url, files=(File(name="model.safetensors", sha256="0" * 64),))
    with pytest.raises(ValueError, match=r"has SHA-256 .*, not 0000"):
        fetch(source, tmp_path / "scorers")


def test_a_hub_is_asked_for_the_pinned_revision_and_the_sha256_is_written(tmp_path, monkeypatch):
    asked = []

    def download(repository, name, revision, local_dir):
        asked.append((repository, name, revision))
        (local_dir / name).write_bytes(b"weights")

    monkeypatch.setattr(weights, "hf_hub_download", download)
    source = Source(hub="huggingface", location="a/b", revision="abc", files=(File(name="model.safetensors"),))
    assert fetch(source, tmp_path) == ""
    assert fetch(source, tmp_path) == ""
    assert asked == [("a/b", "model.safetensors", "abc")]
    folder = find(source, tmp_path)
    assert folder == tmp_path / "huggingface" / "a--b" / "abc"
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="has SHA-256"):
        find(source, tmp_path)


def test_modelscope_is_asked_for_the_pinned_revision(tmp_path, monkeypatch):
    asked = []

    def download(url, path, progress):
        asked.append(url)
        save_file({"x": torch.ones(1)}, path)

    monkeypatch.setattr(weights.torch.hub, "download_url_to_file", download)
    source = Source(hub="modelscope", location="a/b", revision="v1", files=(File(name="HPS_v2/m.safetensors"),))
    assert fetch(source, tmp_path) == ""
    assert asked == ["https://www.modelscope.cn/models/a/b/resolve/v1/HPS_v2/m.safetensors"]
    assert read_state(find(source, tmp_path) / "HPS_v2/m.safetensors")["x"].tolist() == [1]


def test_what_cannot_be_fetched_is_one_line_and_the_rest_is_fetched(tmp_path, monkeypatch, caplog):
    def download(repository, name, revision, local_dir):
        if repository == "gone/model":
            raise EntryNotFoundError("404")
        (local_dir / name).write_bytes(b"weights")

    monkeypatch.setattr(weights, "hf_hub_download", download)
    sources = [
        Source(hub="huggingface", location=location, revision="abc", files=(File(name="model.safetensors"),))
        for location in ("gone/model", "kept/model")
    ]
    with caplog.at_level(logging.WARNING):
        table = fetch_files([Dinov2Params(name=source.location, weights=source) for source in sources], tmp_path)
    assert table["state"].tolist() == ["missing", "present"]
    assert "cannot be fetched (EntryNotFoundError)" in table["reason"][0]
    assert table["reason"][1] == ""
    assert "gone/model lacks its weights" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hub": "huggingface", "location": "a/b", "files": [{"name": "m"}]}, "has no revision; pin one"),
        ({"hub": "url", "location": "https://a", "files": [{"name": "m"}]}, "https://a/m has no SHA-256"),
        ({"hub": "local", "location": "a", "files": []}, "at least 1 item"),
    ],
)
def test_sources_that_are_not_pinned_are_refused(fields, message):
    with pytest.raises(ParameterError, match=message):
        Source.model_validate(fields)


def test_nothing_inside_a_pickle_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"weight": Evil()}))
    with pytest.raises(ValueError, match=r"evil\.pt is no pickle of tensors alone"):
        convert_pickle(tmp_path / "evil.pt", tmp_path / "evil.safetensors")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "evil.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04cut"])
def test_damaged_pickles_and_safetensors_are_one_line(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="is no pickle of tensors alone"):
        convert_pickle(tmp_path / "file", tmp_path / "target")
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        read_state(tmp_path / "file")


def test_tensors_that_share_memory_are_written_whole(tmp_path):
    shared = torch.arange(4.0)
    torch.save({"state_dict": {"a": shared, "b": shared, "c": shared.view(2, 2).T}, "epoch": 3}, tmp_path / "m.pt")
    convert_pickle(tmp_path / "m.pt", tmp_path / "m.safetensors")
    state = load_file(tmp_path / "m.safetensors")
    assert state["a"].tolist() == state["b"].tolist() == [0, 1, 2, 3]
    assert state["c"].tolist() == [[0, 2], [1, 3]]
