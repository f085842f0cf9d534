"""A user's files beside every output of every pipeline survive, byte for byte."""

import pytest


def test_foreign_files_survive_the_main_job(distilled, foreign):
    assert len(foreign) > 100
    for path, content in foreign.items():
        assert path.read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pareto", "reuse", "recovery", "ablation", "baselines", "teacher", "generate"])
def test_foreign_files_survive_every_other_pipeline(run_pipeline, distilled, foreign, name):
    run_pipeline(name, {"data": str(distilled)})
    for path, content in foreign.items():
        assert path.read_bytes() == content
    ours = {path.name for path in (distilled / "06_models/runs").rglob("*") if path.is_file()}
    assert ours == {"!mine.txt"}
