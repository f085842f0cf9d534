import pytest

from onex_distill.distill.stage_two.schedule import Phase, Schedule


@pytest.mark.parametrize(
    ("warmup", "updates", "expected"),
    [
        (0, 1, [1, 3, 5, 7, 9, 11]),
        (3, 2, [5, 8, 11]),
        (6, 2, [8, 11]),
        (2, 3, [3, 7, 11]),
        (20, 1, []),
        (5, 0, list(range(12))),
    ],
)
def test_the_generators_turns(warmup, updates, expected):
    schedule = Schedule(steps=12, discriminator_warmup=warmup, discriminator_updates=updates)
    assert [step for step in range(12) if schedule.phase(step) is Phase.GENERATOR] == expected
    assert all(schedule.phase(step) is Phase.DISCRIMINATOR for step in range(12) if step not in expected)


def test_fitting_comes_first_and_the_compensation_warms_up_alone():
    schedule = Schedule(steps=14, fitting=4, discriminator_warmup=2, discriminator_updates=1, compensation_warmup=2)
    letters = {Phase.FITTING: "f", Phase.DISCRIMINATOR: "d", Phase.WARM_UP: "c", Phase.GENERATOR: "g"}
    assert "".join(letters[schedule.phase(step)] for step in range(14)) == "ffffdddcdcdgdg"


@pytest.mark.parametrize("fitting", [0, 3, 40])
@pytest.mark.parametrize("warmup", [0, 5, 50])
@pytest.mark.parametrize("updates", [0, 1, 2])
@pytest.mark.parametrize("compensation", [0, 4, 50])
def test_counts_are_those_of_the_phases(fitting, warmup, updates, compensation):
    schedule = Schedule(30, fitting, warmup, updates, compensation)
    phases = [schedule.phase(step) for step in range(30)]
    assert schedule.counts == {phase: phases.count(phase) for phase in Phase}
    generators = {Phase.WARM_UP, Phase.GENERATOR}
    for step in range(30):
        assert schedule.generator_updates_before(step) == sum(phase in generators for phase in phases[:step])


def test_the_published_counts():
    """4000 iterations: 50 of the discriminator alone, then two to one; the compensation alone until iteration 1000."""
    schedule = Schedule(4000, discriminator_warmup=50, discriminator_updates=2, compensation_warmup=317)
    assert schedule.generator_updates_before(4000) == 1317
    assert schedule.generator_updates_before(1000) == 317
    assert schedule.counts[Phase.WARM_UP] == 317
    assert schedule.counts[Phase.GENERATOR] == 1000
