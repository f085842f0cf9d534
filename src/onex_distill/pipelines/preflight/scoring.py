"""What a run will not be able to measure, said before it starts."""

import logging
from pathlib import Path

import torch

from onex_distill.evaluation.features import ScorersParams
from onex_distill.evaluation.scored import MetricParams
from onex_distill.evaluation.scorers.files import files_table
from onex_distill.evaluation.shapes_network import ShapesParams
from onex_distill.parameters import unknown_name
from onex_distill.pipelines.preflight.planned import Planned
from onex_distill.storage.weights import find_weights

logger = logging.getLogger(__name__)


def scorers_are_there(planned: Planned) -> None:
    """Warn of networks that cannot run here and of the cells that stay empty.

    Raises ValueError for a missing evaluator, for a metric of a network that no scorer is called or of a row that the
    network does not give, and for weights whose SHA-256 differs.
    """
    for _, params in planned.parameters(ScorersParams):
        for one in params.networks:
            if isinstance(one, ShapesParams):
                _require_evaluator(Path(one.location))
        networks = {one.name: one for one in params.networks}
        users: dict[str, list[str]] = {name: [] for name in networks}
        for name, metric in planned.parameters(MetricParams):
            if metric.features is None:
                continue
            network, _, row = metric.features.partition(".")
            if network not in networks:
                raise ValueError(f"{name}.features names an {unknown_name('network', network, networks)}")
            rows = {*networks[network].gives, *networks[network].optional()}
            if row and row not in rows:
                raise ValueError(f"{name}.features names an {unknown_name(f'row of {network}', row, rows)}")
            users[network].append(name.removeprefix("metrics."))
        for name, reason in _missing(params, planned).items():
            cells = f"; {', '.join(dict.fromkeys(users[name]))} will be empty" if users[name] else ""
            logger.warning("the scorer %s gives no features%s: %s", name, cells, reason)


def _require_evaluator(folder: Path) -> None:
    """The evaluator is no download: without it the data folder is not whole."""
    if not folder.is_dir():
        raise ValueError(f"the input evaluator is missing: {folder} does not exist; copy it beside the teacher")
    find_weights(folder)


def _missing(params: ScorersParams, planned: Planned) -> dict[str, str]:
    """By name, why a network will give no rows, or not all of them."""
    absent = files_table(params.networks, params.folder, {}).query("state != 'present'").drop_duplicates("network")
    missing = dict(zip(absent["network"].astype(str), absent["reason"].astype(str), strict=True))
    gpu = torch.cuda.is_available() and (planned.compute is None or planned.compute.device != "cpu")
    for one in params.networks:
        if not one.runs_on_cpu() and not gpu:
            missing[one.name] = f"{one.kind} runs on a GPU only"
    return missing
