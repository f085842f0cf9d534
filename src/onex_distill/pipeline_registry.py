"""The pipelines that ``kedro run --pipelines=NAME`` knows."""

from kedro.pipeline import Pipeline


def register_pipelines() -> dict[str, Pipeline]:
    """Name to pipeline; a bare ``kedro run`` is ``distill``."""
    # imported here, so that commands which need no pipeline (kedro --version, kedro info) start without torch
    from onex_distill.pipelines import (
        cache_cotraining,
        calibrate,
        composed,
        evaluation,
        generate,
        precompute,
        recovery,
        reuse,
        score,
        scorers,
        stage_one,
        stage_two,
        teacher,
    )

    pipelines = {
        "teacher": teacher.create_pipeline(),
        "precompute": precompute.create_pipeline(),
        "stage_one": stage_one.create_pipeline(),
        "stage_two": stage_two.create_pipeline(),
        "cache_cotraining": cache_cotraining.create_pipeline(),
        "evaluation": evaluation.create_pipeline(),
        "baselines": composed.create_baselines(),
        "ablation": composed.create_ablation(),
        "generate": generate.create_pipeline(),
        "generate_dial": generate.create_dial_pipeline(),
        "reuse": reuse.create_pipeline(),
        "pareto": composed.create_pareto(),
        "recovery": recovery.create_pipeline(),
        "score": score.create_pipeline(),
        "calibrate": calibrate.create_pipeline(),
        "fetch_scorers": scorers.create_fetch_pipeline(),
        "convert_scorers": scorers.create_convert_pipeline(),
    }
    main = ("precompute", "stage_one", "stage_two", "cache_cotraining", "evaluation")
    pipelines["distill"] = sum((pipelines[name] for name in main), Pipeline([]))
    pipelines["__default__"] = pipelines["distill"]
    return pipelines
