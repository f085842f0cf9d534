"""Weights are read once per machine, and a sharded model never stands whole in a rank's own memory."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from onex_distill.engine.randomness import seeded
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.weights import gather, load_transformer, place, save_transformer
from onex_distill.pretraining.architecture import build_transformer
from onex_distill.storage.model_folder import ModelFolder, save_model, stored_dtype


@pytest.fixture
def large(architecture, tmp_path) -> ModelFolder:
    """A transformer of some 200 MiB in many blocks."""
    params = architecture.model_copy(update={"num_layers": 24, "attention_head_dim": 64, "num_attention_heads": 4})
    with seeded(0):
        save_model(build_transformer(params), tmp_path / "large")
    return ModelFolder(path=tmp_path / "large", class_name="diffusers.SD3Transformer2DModel")


def mib(folder: ModelFolder) -> float:
    return sum(path.stat().st_size for path in folder.path.glob("*.safetensors")) / 2**20


@pytest.mark.slow
def test_sharded_ranks_hold_their_share_and_no_more(large, compute, tmp_path):
    settings = compute.model_copy(update={"processes": 2, "sharding": "fsdp2"}).model_dump_json()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id="weights",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(tmp_path / "logs"), redirects=Std.ALL),
    )
    driver = str(Path(__file__).with_name("weights_driver.py"))
    elastic_launch(config, sys.executable)(driver, str(large.path), settings, str(tmp_path))
    size = mib(large)
    assert size > 100
    for rank in range(2):
        memory = json.loads((tmp_path / f"memory-{rank}.json").read_text())
        assert memory["loaded"] < 0.25 * size, memory
        assert memory["placed"] < 0.75 * size, memory
    original, copy = (
        load_file(path / "diffusion_pytorch_model.safetensors") for path in (large.path, tmp_path / "copy")
    )
    assert original.keys() == copy.keys()
    assert all(torch.equal(original[name], copy[name]) for name in original)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_train_in_float32(transformer, tmp_path, compute, dtype):
    save_model(transformer.to(dtype), tmp_path / "half")
    folder = ModelFolder(path=tmp_path / "half", class_name="diffusers.SD3Transformer2DModel")
    loaded = load_transformer(folder)
    assert loaded.dtype == dtype
    placed = place(loaded, Ranks(compute))
    assert {p.dtype for p in placed.parameters()} == {torch.float32}
    save_transformer(gather(placed.state_dict(), Ranks(compute)), folder, tmp_path / "whole")
    assert ModelFolder(path=tmp_path / "whole", class_name=folder.class_name).load().dtype == torch.float32


def test_a_single_tensor_in_another_dtype_does_not_speak_for_the_weights(transformer, tmp_path, compute):
    half = transformer.to(torch.bfloat16)
    half.pos_embed.pos_embed = half.pos_embed.pos_embed.float() + 1e-4  # what bf16 cannot hold
    save_model(half, tmp_path / "half")
    folder = ModelFolder(path=tmp_path / "half", class_name="diffusers.SD3Transformer2DModel")
    stored = load_file(tmp_path / "half/diffusion_pytorch_model.safetensors")
    assert stored["pos_embed.pos_embed"].dtype == torch.float32
    assert stored_dtype(folder.path) == torch.bfloat16
    loaded = load_transformer(folder).state_dict()
    assert loaded.keys() == stored.keys()
    assert all(loaded[name].dtype == stored[name].dtype for name in stored)
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)
    placed = place(load_transformer(folder), Ranks(compute)).state_dict()
    assert all(torch.equal(placed[name], stored[name].float()) for name in stored)
