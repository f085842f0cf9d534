"""The checks of a run, in the order in which they are made: cheap ones first, then those that read headers.

Each asks a function of the room that would fail later. All raise ValueError (or Kedro's DatasetError) of one line.
"""

import logging
from collections.abc import Callable
from typing import Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from onex_distill.cache.plan import check_bands
from onex_distill.datasets import ModelFolderDataset
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.distill.stage_one.validation import cells_per_side
from onex_distill.distill.stage_two.adversary import AdversaryParams
from onex_distill.distill.stage_two.backbones import check_backbone
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.engine.accumulation import check_micro_batch
from onex_distill.engine.optimisation import OptimizerParams, check_optimizer
from onex_distill.engine.speed import check_speed
from onex_distill.evaluation.scored import MetricParams
from onex_distill.evaluation.studies.params import BandSearchParams
from onex_distill.evaluation.studies.reuse import ReuseParams
from onex_distill.models.noise import latent_shape
from onex_distill.pipelines.preflight.planned import Planned
from onex_distill.pipelines.preflight.scoring import scorers_are_there
from onex_distill.pipelines.preflight.tables import budgets_are_met, report_is_possible, score_is_possible
from onex_distill.shapes.captions import unreadable_captions
from onex_distill.storage.files import absent
from onex_distill.storage.model_check import check_model
from onex_distill.storage.prompt_table import rows_of_split

logger = logging.getLogger(__name__)


def check_run(pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
    """Raise ValueError with one line for the first thing that would stop the selected nodes later."""
    planned = Planned(pipeline, catalog)
    for check in CHECKS:
        check(planned)


def inputs_exist(planned: Planned) -> None:
    """Every input that no pipeline makes is there; a teacher with an address is fetched by a later check."""
    for name in planned.inputs:
        if planned.catalog.exists(name) or getattr(planned.catalog.get(name), "can_fetch", False):
            continue
        path = planned.path(name)
        where = "" if path is None else f" ({absent(path)})"
        raise ValueError(f"the input {name} is missing{where}; put it there, or correct its path in the catalog")


def captions_are_read(planned: Planned) -> None:
    """Every captions file makes a prompt table with captions in every split that a selected node draws from."""
    if planned.prompts is None:
        return
    drawn = {"plan_evaluation": "heldout", "plan_validation": "reference", "plan_references": "reference"}
    for node, split in drawn.items():
        if node in planned.nodes:
            rows_of_split(planned.prompts, split)


def metrics_read_captions(planned: Planned) -> None:
    """Warn where the evaluation's captions do not name what ShapesWorld's evaluator would look for."""
    rows = [one.features for name, one in planned.parameters(MetricParams) if name == "metrics.alignment"]
    if planned.prompts is None or not any(row is not None and row.startswith("shapes.") for row in rows):
        return
    texts = planned.prompts.loc[planned.prompts["split"] == "heldout", "text"].tolist()
    unreadable = unreadable_captions(texts)
    if unreadable:
        logger.warning(
            "alignment and entropy stay empty: the evaluator reads captions that name colour, shape and fill, and %d "
            "of %d captions do not, such as %r.",
            len(unreadable),
            len(texts),
            unreadable[0][:80],
        )


def enough_images(planned: Planned) -> None:
    """The caption sets give as many images as stage one's validation and the metrics need."""
    validation, evaluation = planned.images("validation", "reference"), planned.images("evaluation", "heldout")
    if validation is not None and planned.teacher is not None:
        cells_per_side(validation, latent_shape(planned.teacher.transformer.build()))
    for name, params in planned.parameters(MetricParams):
        if evaluation is not None and "compute_precision_recall" in planned.nodes and evaluation <= params.neighbours:
            raise ValueError(
                f"{evaluation} evaluation images are too few for {name}.neighbours {params.neighbours}; raise "
                "evaluation_set.captions"
            )
    if "compute_diversity" in planned.nodes and "plan_evaluation" in planned.nodes:
        images = planned.catalog.load("params:evaluation_set").images_per_caption
        if images < 2:
            raise ValueError(
                f"evaluation_set.images_per_caption {images} leaves no diversity to measure; give 2 or more"
            )


def bands_fit(planned: Planned) -> None:
    """Every band lies between the teacher's first and last block, and every budget can be met."""
    if planned.teacher is None:
        return
    layers = planned.teacher.num_layers
    for _, cotraining in planned.parameters(CotrainingParams):
        for bands in cotraining.candidates:
            check_bands(bands, layers)
    for _, reuse in planned.parameters(ReuseParams):
        check_bands(reuse.bands, layers)
    for _, search in planned.parameters(BandSearchParams):
        check_bands(search.fixed, layers)


def backbones_are_there(planned: Planned) -> None:
    """The discriminators' weights are on this machine."""
    for _, params in planned.parameters(AdversaryParams):
        check_backbone(params.backbone)


def batches_split(planned: Planned) -> None:
    """Every training's batch has a row for every rank."""
    if planned.compute is None:
        return
    ranks = planned.compute.ranks
    batches = [(name, one.batch_size, one.micro_batch_size) for name, one in planned.parameters(StageOneParams)]
    batches += [(name, one.batch_size, one.micro_batch_size) for name, one in planned.parameters(AdversarialParams)]
    for name, size, micro in batches:
        if size < ranks:
            raise ValueError(f"{name}.batch_size {size} cannot be split over {ranks} ranks; raise it")
        try:
            check_micro_batch(size, micro, ranks)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def optimizers_run(planned: Planned) -> None:
    """Every optimizer runs on this machine, and on weights so sharded."""
    if planned.compute is None:
        return
    trainings = [*planned.parameters(StageOneParams), *planned.parameters(AdversarialParams)]
    for value in (value for _, params in trainings for value in dict(params).values()):
        if isinstance(value, OptimizerParams):
            check_optimizer(value, planned.compute)


def machine_is_fast(planned: Planned) -> None:
    """This machine has the compiler and the attention kernel that the run asks for."""
    if planned.compute is not None:
        check_speed(planned.compute)


def models_are_whole(planned: Planned) -> None:
    """Headers and configs of every model that the run reads, and the whole of its teacher."""
    for teacher in planned.teachers.values():
        teacher.check_weights()
    for name in planned.inputs:
        if isinstance(planned.catalog.get(name), ModelFolderDataset):
            folder = planned.catalog.load(name)
            if not (folder.path / "model_index.json").is_file():
                check_model(folder)


CHECKS: tuple[Callable[[Planned], None], ...] = (
    inputs_exist,
    batches_split,
    machine_is_fast,
    optimizers_run,
    backbones_are_there,
    captions_are_read,
    metrics_read_captions,
    scorers_are_there,
    bands_fit,
    budgets_are_met,
    report_is_possible,
    score_is_possible,
    enough_images,
    models_are_whole,
)
