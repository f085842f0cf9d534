"""Benchmarks whose rows are a judge's answers: DPG-Bench and GenEval-style, from rows of networks and their notes."""

import json
import math
from functools import partial

import torch
from torch import Tensor

from onex_distill.evaluation.scored import (
    ConfidenceParams,
    Measurement,
    MetricParams,
    Scored,
    Unmeasured,
    jackknifed,
    mean_of,
)
from onex_distill.evaluation.scorers.detector import CASES, CLASSES, detections
from onex_distill.evaluation.scorers.vqa import PROPOSITIONS
from onex_distill.metrics import confidence as intervals
from onex_distill.metrics import dpg, geneval


def measure_dpg(
    scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """DPG-Bench in percent: overall over images, and every broad category over propositions.

    Args:
        scored: The set that is measured.
        reference: Not read.
        params: The settings, validated.
        confidence: Level, draws and groups of intervals.

    Returns:
        Measurements by column.

    Raises:
        Unmeasured: Nothing is left to measure.
    """
    features, protocol = str(params.features), params.protocol
    answers = scored.applicable(features)
    propositions = dpg.read_propositions(scored.note(features, PROPOSITIONS))
    item_of = {one.text: one.item for one in propositions}
    items = [item_of[text] for text in scored.index["text"]]
    scores = dpg.proposition_scores(propositions, items, answers, protocol)
    if scores.empty:
        raise Unmeasured(f"the {protocol} protocol leaves out every image")
    images = torch.tensor(scores["image"].to_numpy())
    groups = intervals.prompt_groups(scored.prompts, confidence.groups, confidence.seed)

    def category(name: str, kept: Tensor) -> float:
        return dpg.category_scores(scores[kept[images].numpy()], protocol).get(name, math.nan)

    shares = dpg.image_scores(scores)
    prompts = scored.prompts[torch.tensor(shares.index.to_numpy())]
    found = {"dpg": mean_of(100 * torch.tensor(shares.to_numpy()), prompts, confidence)}
    for name, value in dpg.category_scores(scores, protocol).items():
        found[f"dpg_{name.lower()}"] = jackknifed(value, partial(category, name), groups, confidence)
    return found


def measure_geneval(
    scored: Scored, reference: Scored | None, params: MetricParams, confidence: ConfidenceParams
) -> dict[str, Measurement]:
    """The share of correct images of every tag, and overall the mean over tags.

    Args:
        scored: The set that is measured.
        reference: Not read.
        params: The settings, validated.
        confidence: Level, draws and groups of intervals.

    Returns:
        Measurements by column.

    Raises:
        Unmeasured: A case names an object that the detector does not know.
    """
    features = str(params.features)
    objects = scored.applicable(features)
    names = {int(one): str(name) for one, name in json.loads(scored.note(features, CLASSES).read_text()).items()}
    known = {case.prompt: case for case in geneval.read_cases(scored.note(features, CASES))}
    cases = [known[text] for text in scored.index["text"]]
    asked = {wanted.name for case in cases for wanted in (*case.include, *case.exclude)}
    if unknown := sorted(asked - set(names.values())):
        raise Unmeasured(f"the detector does not know {unknown[0]!r}; take one of COCO's classes")
    correct = [geneval.is_correct(case, detections(one, names)) for case, one in zip(cases, objects, strict=True)]
    groups = intervals.prompt_groups(scored.prompts, confidence.groups, confidence.seed)

    def share(tag: str, kept: Tensor) -> float:
        places = kept.nonzero()[:, 0].tolist()
        return geneval.tag_scores([cases[i] for i in places], [correct[i] for i in places]).get(tag, math.nan)

    return {
        "geneval_style" if tag == "overall" else f"geneval_style_{tag}": jackknifed(
            value, partial(share, tag), groups, confidence
        )
        for tag, value in geneval.tag_scores(cases, correct).items()
    }
