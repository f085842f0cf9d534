"""The ranges of noise seeds: what is judged is never made from noise that something else was made from."""

from itertools import combinations

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from support import PROJECT


def ranges(parameters):
    """Every range of noise seeds, by who draws from it."""
    evaluation, validation = parameters["evaluation_set"], parameters["validation_set"]
    references, generation = parameters["references"], parameters["generation"]
    sizes = {
        "evaluation_set": (evaluation.seed, evaluation.captions * evaluation.images_per_caption),
        "validation_set": (validation.seed, validation.captions * validation.images_per_caption),
        "references": (references.seed, references.count),
        "generation": (generation.seed, 100_000),  # images of one run
        "null": (parameters["evaluation"].null_seed, evaluation.captions * evaluation.images_per_caption),
    }
    regression = parameters["student"]["stage_one"].regression
    if regression is not None:
        sizes["trajectories"] = (regression.seed, regression.trajectories)
    return {name: range(seed, seed + count) for name, (seed, count) in sizes.items()}


@pytest.mark.parametrize("env", ["base", "test", "sd3_medium", "sd35_large"])
def test_ranges_of_noise_are_disjoint(env):
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env=env) as session:
        drawn = ranges(session.load_context().params)
    for (one, first), (other, second) in combinations(drawn.items(), 2):
        assert first.stop <= second.start or second.stop <= first.start, f"{one} and {other} share noise"
