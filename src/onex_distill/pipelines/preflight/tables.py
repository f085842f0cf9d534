"""What the tables and the report at the end of a run ask for, looked up before it starts."""

from fnmatch import fnmatchcase

from onex_distill.cache.band_search import blocks_to_skip, plans_by_blocks
from onex_distill.cache.plan import effective_nfe, plan_for_budget
from onex_distill.datasets import CaptionsDataset
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.evaluation.anything.gather import check_sources
from onex_distill.evaluation.anything.params import ScoreParams
from onex_distill.evaluation.params import NFE, MethodParams, ReportParams
from onex_distill.evaluation.published import published_table
from onex_distill.evaluation.studies.params import BandSearchParams
from onex_distill.parameters import unknown_name
from onex_distill.pipelines.preflight.planned import Planned


def budgets_are_met(planned: Planned) -> None:
    """Every row that names a budget finds bands for it among those that its student is trained for."""
    if planned.teacher is None:
        return
    layers = planned.teacher.num_layers
    trained = {name.removesuffix(".cotraining"): one for name, one in planned.parameters(CotrainingParams)}
    for name, method in planned.parameters(MethodParams):
        cotraining = trained.get(name.removeprefix("methods."))
        if cotraining is not None and method.nfe is not None:
            plan_for_budget(method.nfe, cotraining.candidates, layers, method.steps)
    for _, search in planned.parameters(BandSearchParams):
        if search.nfe is not None:  # FLOPs are counted by the search itself
            plans = plans_by_blocks(layers, search.num_inference_steps)
            costs = {count: effective_nfe(plan, layers) for count, plan in plans.items()}
            blocks_to_skip("nfe", search.nfe, costs, search.num_inference_steps)


def report_is_possible(planned: Planned) -> None:
    """The report speaks of a row of this run, and of published rows that there are."""
    for name, params in planned.parameters(ReportParams):
        if params.published is not None:
            published_table(params.published)
        keys = _rows(planned)
        shown = [name for key, method in planned.parameters(MethodParams) for name in _shown(planned, key, method)]
        shown.append("teacher_*x2")
        if keys and params.student not in keys and not any(fnmatchcase(params.student, one) for one in shown):
            raise ValueError(f"{name}.student names an {unknown_name('row', params.student, keys)}")


def _shown(planned: Planned, key: str, method: MethodParams) -> list[str]:
    """As tables name a method; one whose bands this run does not train may cost anything."""
    trained = {name: one.candidates for name, one in planned.parameters(CotrainingParams)}
    candidates = trained.get(f"{key.removeprefix('methods.')}.cotraining")
    if NFE not in method.name or candidates is None or planned.teacher is None:
        return [method.name.replace(NFE, "*")]
    return [method.named(bands, planned.teacher.num_layers).name for bands in candidates]


def _rows(planned: Planned) -> set[str]:
    """Keys of the rows that the run gathers; empty where it goes on with rows that another one has gathered."""
    node = planned.nodes.get("gather_features")
    names = set() if node is None else {name.removesuffix("_features") for name in node.inputs}
    return set() if "gathered" in names else names


def score_is_possible(planned: Planned) -> None:
    """Folders, captions and pipelines that are scored can be opened."""
    for _, params in planned.parameters(ScoreParams):
        check_sources(params)
        if params.captions is not None:
            CaptionsDataset(filepath=str(params.captions)).load()
