"""The job of stage two."""

from typing import Self

from pydantic import PositiveInt, model_validator

from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.distill.stage_two.trainer import AdversarialTrainer
from onex_distill.engine.accumulation import check_micro_batch
from onex_distill.engine.job import Job
from onex_distill.engine.loop import train
from onex_distill.engine.run import Run
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TableFolder


class AdversarialJob(Job):
    """Refine ``student`` on its own inference path against the reference generator's images.

    ``references`` holds ``image``; its index ``prompt_row`` and ``noise_seed``. Where the parameters ask for new ones,
    ``reference_generator`` makes them in ``reference_steps`` steps.
    """

    student: ModelFolder
    autoencoder: ModelFolder
    recogniser: ModelFolder
    reference_generator: ModelFolder
    reference_steps: PositiveInt
    shift: float
    embeddings: TableFolder
    references: TableFolder
    params: AdversarialParams

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        for size in self.params.batch_sizes:
            check_micro_batch(size, self.params.micro_batch_size, self.compute.ranks)
        return self

    def run(self, run: Run) -> None:
        """Write ``student`` and ``losses.parquet``."""
        train_adversarially(AdversarialTrainer(self, run.ranks), run)


def train_adversarially(trainer: AdversarialTrainer, run: Run) -> None:
    """Train to the end, and write what the trainer saves and ``losses.parquet``."""
    losses = train(trainer.update, trainer.states(), trainer.params.loop, run, trainer.describe)
    trainer.save(run.result)
    if run.ranks.is_first:
        losses.to_parquet(run.result / "losses.parquet")
