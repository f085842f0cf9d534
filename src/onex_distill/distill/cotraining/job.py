"""The job of cache co-training."""

from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.cotraining.trainer import CotrainingTrainer
from onex_distill.distill.stage_two.job import AdversarialJob, train_adversarially
from onex_distill.engine.run import Run


class CotrainingJob(AdversarialJob):
    """Train a compensation, then compensation and student together, on the cached inference path."""

    params: CotrainingParams

    def run(self, run: Run) -> None:
        """Write ``student``, ``compensation`` and ``losses.parquet``."""
        train_adversarially(CotrainingTrainer(self, run.ranks), run)
