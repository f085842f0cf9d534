"""Trainers of adversarial runs, and a batch for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from onex_distill.distill.stage_two.job import AdversarialJob
from onex_distill.distill.stage_two.references import Batch
from onex_distill.distill.stage_two.trainer import AdversarialTrainer
from onex_distill.engine.job import Job
from onex_distill.engine.ranks import Ranks
from onex_distill.models.prompts import PromptBatch
from onex_distill.storage.tensor_table import TableFolder, TensorTable
from support import trainer_of
from training_fixtures import Inputs

Build = Callable[..., AdversarialTrainer]


@pytest.fixture
def build(jobs: Callable[..., Job], ranks: Ranks, tmp_path: Path) -> Build:
    """Make a trainer of a job with some changes, always from the same weights.

    It starts with one discriminator update.
    """

    def make(name: str, **changes: Any) -> AdversarialTrainer:
        job = jobs(name, tmp_path, **{"discriminator_warmup": 1, "steps": 6} | changes)
        assert isinstance(job, AdversarialJob)
        return trainer_of(job, ranks)

    return make


@pytest.fixture
def batch(prompts: PromptBatch, noise: Tensor) -> Batch:
    """Three rows."""
    return Batch(prompts, noise, rows=torch.tensor([0, 3, 1]))


@pytest.fixture
def with_reference_split(inputs: Inputs, tmp_path: Path) -> TableFolder:
    """The embeddings, every caption of them in the reference split."""
    embeddings = inputs.embeddings.open()
    columns = {name: embeddings.column(name) for name in embeddings.names}
    return TensorTable.write(tmp_path / "split", embeddings.index.assign(split="reference"), columns).handle
