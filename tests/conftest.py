"""Fixtures that every test may use: a Stable Diffusion 3 teacher small enough for milliseconds, and its prompts."""

import os
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from hypothesis import Phase, settings

from onex_distill.engine.randomness import seeded
from onex_distill.models.prompts import PromptBatch, read_prompts
from onex_distill.models.text import encode_prompts
from onex_distill.pretraining import architecture as tiny
from onex_distill.shapes.captions import all_captions
from onex_distill.storage.model_folder import save_model
from onex_distill.storage.tensor_table import TensorTable

pytest_plugins = ["training_fixtures"]

# examples of large models would be made smaller for hours
settings.register_profile("project", phases=(Phase.explicit, Phase.reuse, Phase.generate))
settings.load_profile("project")

CAPTIONS = ("the red solid circle", "a hollow blue square", "the green striped cross", "a filled pink triangle")


def pytest_configure() -> None:
    """Side by side (``-n``), every worker and what it starts computes with its share of the cores."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, (os.cpu_count() or 1) // workers)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Side by side, one worker has all tests of a file, and of those that ask for the finished main job.

    What they share is then made once. xdist's own ``loadgroup`` does not group under pytest 9.
    """
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "distilled" if _asks_for_distilled(config.rootpath / file) else file

    config.option.loadscopereorder = False  # by the number of tests; see ``pytest_collection_modifyitems``
    return Scheduling(config, log)


@cache
def _asks_for_distilled(file: Path) -> bool:
    return re.search(r"\bdistilled\b", file.read_text(encoding="utf-8")) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole pipelines take longest and come first, so that no worker is left alone with them in the end."""
    items.sort(key=lambda item: (item.path.parent.name != "pipelines", not _asks_for_distilled(item.path)))


class PromptTables(NamedTuple):
    """Embeddings of ``CAPTIONS`` and of the empty prompt."""

    prompts: TensorTable
    empty: TensorTable


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Whatever a test draws without a generator is the same in every run and order."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def architecture() -> tiny.ArchitectureParams:
    """Images of 32 x 32 pixels, latents of 4 x 8 x 8, four blocks of width 16."""
    return tiny.ArchitectureParams(
        latent_size=8,
        latent_channels=4,
        autoencoder_channels=(8, 8, 16),
        num_layers=4,
        attention_head_dim=8,
        num_attention_heads=2,
        patch_size=2,
        qk_norm="rms_norm",
        dual_attention_layers=(),
        clip_dim=8,
        t5_dim=16,
        text_layers=1,
        max_tokens=6,
        shift=3.0,
    )


@pytest.fixture(scope="session")
def words() -> list[str]:
    """Every word of ShapesWorld's captions."""
    return sorted({word for text in all_captions()["text"] for word in text.split()})


@pytest.fixture
def transformer(architecture: tiny.ArchitectureParams) -> SD3Transformer2DModel:
    """A random velocity network."""
    with seeded(1):
        return tiny.build_transformer(architecture).eval()


def build_teacher(architecture: tiny.ArchitectureParams, words: list[str]) -> StableDiffusion3Pipeline:
    tokenizers = tiny.build_tokenizers(words, architecture.max_tokens)
    with seeded(0):
        clip, clip_2, t5 = tiny.build_text_encoders(architecture, tokenizers[0], tokenizers[2])
        autoencoder = tiny.build_autoencoder(architecture)
    with seeded(1):
        transformer = tiny.build_transformer(architecture)
    autoencoder.register_to_config(shift_factor=0.1, scaling_factor=1.5)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        vae=autoencoder.eval(),
        scheduler=tiny.build_scheduler(architecture),
        text_encoder=clip.eval(),
        text_encoder_2=clip_2.eval(),
        text_encoder_3=t5.eval(),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        tokenizer_3=tokenizers[2],
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def tiny_teacher(architecture: tiny.ArchitectureParams, words: list[str]) -> StableDiffusion3Pipeline:
    """A complete random teacher."""
    return build_teacher(architecture, words)


@pytest.fixture(scope="session")
def stored_teacher(
    architecture: tiny.ArchitectureParams, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The teacher's folder, made once; what changes it takes ``tiny_teacher_folder``."""
    folder = tmp_path_factory.mktemp("stored") / "teacher"
    save_model(build_teacher(architecture, words), folder)
    return folder


@pytest.fixture
def tiny_teacher_folder(stored_teacher: Path, tmp_path: Path) -> Path:
    """The teacher on disk, for one test alone."""
    return Path(shutil.copytree(stored_teacher, tmp_path / "teacher"))


@pytest.fixture(scope="session")
def prompt_tables(
    architecture: tiny.ArchitectureParams, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> PromptTables:
    """Embeddings of a few captions, all of the training split, and of the empty prompt; on disk, not to be changed."""
    folder, teacher, tables = tmp_path_factory.mktemp("prompts"), build_teacher(architecture, words), []
    for name, texts in (("captions", list(CAPTIONS)), ("empty", [""])):
        embeds, pooled = encode_prompts(teacher, texts, architecture.max_tokens)
        ids = [f"caption-{i}" for i in range(len(texts))]
        index = pd.DataFrame({"id": ids, "text": texts, "split": "train"})
        columns = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
        tables.append(TensorTable.write(folder / name, index, columns))
    return PromptTables(*tables)


@pytest.fixture
def prompts(prompt_tables: PromptTables) -> PromptBatch:
    """Three prompts as a batch."""
    return read_prompts(prompt_tables.prompts, [0, 1, 2], torch.device("cpu"))


@pytest.fixture
def empty(prompt_tables: PromptTables) -> PromptBatch:
    """The empty prompt as a batch of one."""
    return read_prompts(prompt_tables.empty, [0], torch.device("cpu"))


@pytest.fixture
def noise() -> torch.Tensor:
    """Three latents of noise."""
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(5))
