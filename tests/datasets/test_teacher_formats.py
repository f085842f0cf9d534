"""Teachers in every format that diffusers opens, as tiny random checkpoints in the published layouts."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from kedro.io.core import DatasetError
from safetensors.torch import load_file, save_file
from torch import Tensor

from onex_distill.datasets import TeacherDataset
from onex_distill.models.teacher import TeacherFolder
from onex_distill.models.text import encode_prompts
from original_layout import original_transformer, original_vae
from published import write_checkpoint

WORDS = ["a", "cat", "on", "the", "table"]
MODELS = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Float32 weights in shards, and half-precision ones beside them."""
    folder = tmp_path_factory.mktemp("both") / "teacher"
    return write_checkpoint("sd3_medium", folder, WORDS, (None, "fp16"), torch.float32)


@pytest.fixture(scope="module")
def half(both, tmp_path_factory):
    """The half-precision files alone."""
    return without(both, tmp_path_factory.mktemp("half") / "teacher", "fp16")


def without(source: Path, folder: Path, variant: str) -> Path:
    shutil.copytree(source, folder)
    for path in folder.glob("*/*.safetensors*"):
        if variant not in path.name:
            path.unlink()
    return folder


def opened(folder: Path) -> TeacherFolder:
    teacher: TeacherFolder = TeacherDataset(filepath=str(folder)).load()
    teacher.check_weights()
    return teacher


def weights(folder: Path, name: str) -> dict[str, Tensor]:
    return {
        key: value for path in sorted(folder.glob(f"{name}/*.safetensors")) for key, value in load_file(path).items()
    }


def test_float32_weights_stay_float32_where_a_variant_lies_beside_them(both):
    pipeline = opened(both).load()
    stored = {key: value for key, value in weights(both, "text_encoder").items() if value.dtype == torch.float32}
    for name in MODELS:
        assert getattr(pipeline, name).dtype == torch.float32
    loaded = pipeline.text_encoder.state_dict()
    exact = [key for key in stored if key in loaded and not torch.equal(stored[key], stored[key].half().float())]
    assert exact
    assert all(torch.equal(loaded[key], stored[key]) for key in exact)


def test_a_folder_of_half_precision_alone_opens_in_float32(half):
    teacher = opened(half)
    pipeline = teacher.load()
    assert {getattr(pipeline, name).dtype for name in MODELS} == {torch.float32}
    stored = weights(half, "vae")
    assert all(torch.equal(value, stored[key].float()) for key, value in pipeline.vae.state_dict().items())
    image = pipeline("a cat", num_inference_steps=1, max_sequence_length=8, output_type="pt").images
    assert torch.isfinite(image).all()


def test_two_variants_and_none_without_are_refused(half, tmp_path):
    folder = Path(shutil.copytree(half, tmp_path / "teacher"))
    save_file({"a": torch.zeros(1)}, folder / "vae/diffusion_pytorch_model.bf16.safetensors")
    with pytest.raises(ValueError, match="in the variants bf16, fp16 and none without; keep one of them"):
        opened(folder)


def test_a_lost_shard_is_named(both, tmp_path):
    folder = Path(shutil.copytree(both, tmp_path / "teacher"))
    next(iter(folder.glob("transformer/diffusion_pytorch_model-00002-of-*"))).unlink()
    with pytest.raises(ValueError, match="lacks the shard diffusion_pytorch_model-00002"):
        opened(folder)


def test_a_hub_snapshot_of_links_opens(both, tmp_path):
    snapshot, blobs = tmp_path / "snapshots/abc", tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in both.rglob("*") if path.is_file())):
        link = snapshot / path.relative_to(both)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    linked = tmp_path / "teacher"
    linked.symlink_to(snapshot)
    assert opened(linked).load().transformer.dtype == torch.float32
    lost = snapshot / "vae/diffusion_pytorch_model.fp16.safetensors"
    first = next(path for path in snapshot.glob("vae/*.safetensors") if path.name != lost.name)
    first.resolve().unlink()
    with pytest.raises(ValueError, match=r"lacks the shard|is a link to"):
        opened(linked)


def test_a_read_only_folder_opens(half, tmp_path):
    folder = Path(shutil.copytree(half, tmp_path / "teacher"))
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    opened(folder).load()
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


def test_pickled_weights_are_explained(half, tmp_path):
    folder = Path(shutil.copytree(half, tmp_path / "teacher"))
    for path in folder.glob("vae/*.safetensors*"):
        path.unlink()
    torch.save({}, folder / "vae/diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="a pickle, which can run code and is not read; save the model as safetensors"):
        opened(folder)


def test_a_teacher_without_t5_is_encoded_and_sampled_as_diffusers_does(half, tmp_path):
    folder = Path(shutil.copytree(half, tmp_path / "teacher"))
    index = json.loads((folder / "model_index.json").read_text())
    absent = {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index | absent))
    for name in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / name)
    teacher = opened(folder)
    plain = StableDiffusion3Pipeline.from_pretrained(
        folder, variant="fp16", dtype=torch.float32, text_encoder_3=None, tokenizer_3=None
    )
    ours = encode_prompts(teacher.load_text_pipeline(), ["a cat", "the table"], 8)
    theirs = plain.encode_prompt(["a cat", "the table"], None, None, max_sequence_length=8)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[2])
    assert not ours[0][:, 77:].any()
    assert teacher.embedding_bytes(8) * 2 == ours[0].nbytes + ours[1].nbytes
    image = teacher.load()("a cat", num_inference_steps=1, max_sequence_length=8, output_type="pt").images
    assert torch.isfinite(image).all()


def original_layout(transformer: SD3Transformer2DModel, vae: AutoencoderKL) -> dict[str, Tensor]:
    """The weights of a transformer and an autoencoder under the names of the original checkpoints."""
    prefix = "model.diffusion_model."
    own = {prefix + key: value for key, value in original_transformer(transformer.state_dict()).items()}
    return own | {f"first_stage_model.{key}": value for key, value in original_vae(vae.state_dict()).items()}


@pytest.fixture
def single_file(both, tmp_path):
    pipeline = TeacherFolder(path=both).load()
    stored = original_layout(pipeline.transformer, pipeline.vae)
    save_file({key: value.contiguous().clone() for key, value in stored.items()}, tmp_path / "sd3.safetensors")
    return tmp_path / "sd3.safetensors"


def test_a_checkpoint_in_one_file_gives_the_same_teacher(both, single_file, tmp_path):
    dataset = TeacherDataset(filepath=str(tmp_path / "made"), single_file=str(single_file), config=str(both))
    assert dataset.can_fetch
    teacher: TeacherFolder = dataset.load()
    teacher.check_weights()
    expected, found = TeacherFolder(path=both).load(), teacher.load()
    for name in ("transformer", "vae", "text_encoder"):
        ours, theirs = getattr(found, name).state_dict(), getattr(expected, name).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    single_file.unlink()
    assert dataset.load().path == tmp_path / "made"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sd3.ckpt", b"", "is no .safetensors file; other checkpoints can run code"),
        ("gone.safetensors", None, "does not exist; put the checkpoint there"),
        ("odd.safetensors", b"not one", "is no safetensors file, or damaged"),
    ],
)
def test_a_single_file_that_is_none_is_one_line(both, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    dataset = TeacherDataset(filepath=str(tmp_path / "made"), single_file=str(tmp_path / name), config=str(both))
    with pytest.raises(DatasetError, match=message) as error:
        dataset.load()
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "made").exists()
