"""Which phase every step of an adversarial run belongs to, and how many steps each phase has: pure arithmetic."""

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """What one step trains.

    ``FITTING``: the compensation, by regression. ``DISCRIMINATOR``: the discriminator. ``WARM_UP``: the compensation
    alone, by the generator's losses. ``GENERATOR``: the student, and the compensation if there is one, by the same.
    """

    FITTING = "fitting"
    DISCRIMINATOR = "discriminator"
    WARM_UP = "warm_up"
    GENERATOR = "generator"


@dataclass(frozen=True)
class Schedule:
    """The phases of ``steps`` steps, in which updates of the discriminator and of the generator are counted together.

    After ``fitting`` steps the discriminator has ``discriminator_updates`` steps and the generator one, in turn; in the
    first ``discriminator_warmup`` of these steps the discriminator takes the generator's turns too (published: 4000
    steps, 50 of warm-up and two to one make 1317 generator updates). The first ``compensation_warmup`` of the
    generator's updates are those of the compensation alone. With zero ``discriminator_updates`` there is no
    discriminator, and every step after fitting is the generator's.
    """

    steps: int
    fitting: int = 0
    discriminator_warmup: int = 0
    discriminator_updates: int = 0
    compensation_warmup: int = 0

    def phase(self, step: int) -> Phase:
        """What ``step`` trains."""
        if step < self.fitting:
            return Phase.FITTING
        if not self._is_generators(step):
            return Phase.DISCRIMINATOR
        return Phase.WARM_UP if self.generator_updates_before(step) < self.compensation_warmup else Phase.GENERATOR

    def generator_updates_before(self, step: int) -> int:
        """How many updates with the generator's losses precede ``step``, the compensation's warm-up included."""
        after = max(step - self.fitting, 0)
        if not self.discriminator_updates:
            return after
        cycle = self.discriminator_updates + 1
        return max(after // cycle - self.discriminator_warmup // cycle, 0)

    @property
    def counts(self) -> dict[Phase, int]:
        """The steps of every phase, which add up to ``steps``."""
        fitting = min(self.fitting, self.steps)
        updates = self.generator_updates_before(self.steps)
        warm_up = min(self.compensation_warmup, updates)
        return {
            Phase.FITTING: fitting,
            Phase.DISCRIMINATOR: self.steps - fitting - updates,
            Phase.WARM_UP: warm_up,
            Phase.GENERATOR: updates - warm_up,
        }

    def _is_generators(self, step: int) -> bool:
        return self.generator_updates_before(step + 1) > self.generator_updates_before(step)
