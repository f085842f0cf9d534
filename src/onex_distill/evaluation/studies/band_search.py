"""The band search: damage to the latents of a few samples predicts that to the images of the plan, then measured."""

from pathlib import Path

import pandas as pd
import torch

from onex_distill.cache.band_search import blocks_to_skip, plans_by_blocks, sets_of_bands
from onex_distill.cache.compensation import Compensation
from onex_distill.cache.damage import mean_damage
from onex_distill.cache.plan import Bands, as_bands, check_bands, effective_nfe
from onex_distill.distill.cotraining.cotrain import COMPENSATION
from onex_distill.engine.compute import ComputeParams
from onex_distill.evaluation.cost import evaluation_flops, sampling_flops
from onex_distill.evaluation.features import extract_features
from onex_distill.evaluation.inputs import SamplingInputs, StudyInputs
from onex_distill.evaluation.methods import Sampler
from onex_distill.evaluation.params import MethodParams
from onex_distill.evaluation.studies.params import BandSearchParams
from onex_distill.storage.model_folder import ModelFolder, save_model

WHOLE = "every block"
MEASURED = ("method", "fid", "alignment", "diversity")


def predict_bands(
    student: ModelFolder, inputs: SamplingInputs, plan: pd.DataFrame, params: BandSearchParams
) -> pd.DataFrame:
    """Every set of bands that meets the budget with its predicted damage, least first; bands as nested lists.

    Args:
        student: The student's transformer.
        inputs: What is sampled with.
        plan: A row per image: its caption and noise seed.
        params: The settings, validated.

    Returns:
        A row per set of bands.

    Raises:
        ValueError: The fixed bands do not fit the transformer or do not cost what the others cost.
    """
    teacher, embeddings = inputs.teacher, inputs.embeddings.open()
    skipped = _blocks_to_skip(params, student, inputs)
    sets = sets_of_bands(skipped, teacher.num_layers, params.max_bands)
    _check_fixed(params, skipped, teacher.num_layers)
    # spread over the plan, whose rows are grouped by caption
    rows = plan.iloc[:: max(1, len(plan) // params.images)].head(params.images)
    table = mean_damage(
        student.load().eval(),
        embeddings,
        rows,
        teacher.shift,
        params.num_inference_steps,
        list(dict.fromkeys([*sets, params.fixed])),
        inputs.batch_size,
    )
    return table.assign(bands=table["bands"].map(_lists))


def measure_bands(
    student: ModelFolder,
    predicted: pd.DataFrame,
    study: StudyInputs,
    plan: pd.DataFrame,
    params: BandSearchParams,
    compute: ComputeParams,
    folder: Path,
) -> pd.DataFrame:
    """Plain caching of the chosen bands against the same student without cache, least damage first.

    Args:
        student: sampled without cache and with every chosen set of bands.
        predicted: what ``predict_bands`` made.
        study: what to sample with and what to score by.
        plan: captions and noise.
        params: which sets are measured.
        compute: where to sample.
        folder: of the run.

    Returns:
        A row per set: ``choice`` says why it is there, ``rank`` counts from the least predicted damage, ``fid`` is the
        distance to the uncached images, the measured damage, and ``rank_correlation`` Spearman's of both damages over
        all rows, the same in each.
    """
    sampler = Sampler(study.sampling, plan, compute)
    chosen = _choose(predicted, params)
    candidates = [_tuples(bands) for bands in chosen["bands"]]
    plain = Compensation(student.build().inner_dim, candidates, "identity")
    save_model(plain, folder / "compensation")
    compensation = ModelFolder(path=folder / "compensation", class_name=COMPENSATION)
    samples, costs = {}, {}
    for number, bands in enumerate([(), *candidates]):
        name = str(_lists(bands)) if bands else WHOLE
        method = MethodParams.unguided(name, params.num_inference_steps)
        samples[name], costs[name] = sampler.sample(student, method, folder / str(number), compensation, bands)
    whole = extract_features(
        samples.pop(WHOLE).handle, study.scoring.scorers, compute, folder / "features of the whole"
    )
    scoring = study.scoring.model_copy(update={"reference": whole.handle})
    scores = scoring.score_images(samples, compute, folder)
    scores = scores[[name for name in MEASURED if name in scores]]
    counts = pd.DataFrame(costs.values())[["method", "nfe", "nfe_flops"]]
    table = chosen.assign(method=[str(_lists(bands)) for bands in candidates]).merge(scores, on="method")
    table = table.assign(rank_correlation=table["predicted"].corr(table["fid"], method="spearman"))
    return table.merge(counts, on="method").drop(columns="method").sort_values("fid", ignore_index=True)


def _blocks_to_skip(params: BandSearchParams, student: ModelFolder, inputs: SamplingInputs) -> int:
    """How many blocks meet the budget, by blocks or by the FLOPs of plain caching."""
    teacher, embeddings = inputs.teacher, inputs.embeddings.open()
    count, budget = params.budget
    plans = plans_by_blocks(teacher.num_layers, params.num_inference_steps)
    if count == "nfe":
        costs = {skipped: effective_nfe(plan, teacher.num_layers) for skipped, plan in plans.items()}
    else:
        network = student.build()
        plain = Compensation(network.inner_dim, [plan.bands for plan in plans.values()], "identity")
        one = evaluation_flops(network, teacher.shift, embeddings)
        costs = {
            skipped: sampling_flops(network, plan, teacher.shift, embeddings, plain) / one
            for skipped, plan in plans.items()
        }
    return blocks_to_skip(count, budget, costs, params.num_inference_steps)


def _check_fixed(params: BandSearchParams, skipped: int, num_layers: int) -> None:
    """Raise ValueError unless the fixed bands fit the transformer and cost what the others cost."""
    check_bands(as_bands(params.fixed), num_layers)
    name, budget = params.budget
    count = sum(stop - start for start, stop in params.fixed)
    if count != skipped:
        raise ValueError(
            f"band_search.fixed skips {count} blocks but {name} {budget} needs {skipped} of {num_layers}; "
            "change one of the two"
        )


def _choose(predicted: pd.DataFrame, params: BandSearchParams) -> pd.DataFrame:
    """The rows to be measured: the most promising, the fixed one, and random others."""
    ranked = predicted.assign(rank=range(1, len(predicted) + 1))
    fixed = ranked["bands"].map(_tuples) == params.fixed
    best, rest = ranked.head(params.measured).assign(choice="search"), ranked[params.measured :]
    rest = rest[~fixed[params.measured :]]
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(params.seed)).tolist()
    drawn = rest.iloc[order[: params.random]].assign(choice="random")
    rows = pd.concat([best, ranked[fixed].assign(choice="fixed"), drawn])
    # the fixed choice may be among the best: it is measured once and keeps both names
    return rows.groupby("rank", as_index=False).agg({"bands": "first", "predicted": "first", "choice": " and ".join})


def _lists(bands: Bands) -> list[list[int]]:
    return [[int(start), int(stop)] for start, stop in bands]


def _tuples(bands: list[list[int]]) -> Bands:
    return tuple((int(start), int(stop)) for start, stop in bands)
