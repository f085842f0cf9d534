"""All that is scored as one table of images."""

from pathlib import Path

import numpy as np
import pandas as pd

from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.launch import launch
from onex_distill.evaluation.anything.folders import read_folder, store_folder
from onex_distill.evaluation.anything.params import ScoreParams
from onex_distill.evaluation.anything.pipelines import PipelineJob, check_pipeline
from onex_distill.parameters import unknown_name
from onex_distill.storage.files import remove_made
from onex_distill.storage.frame import store_frame
from onex_distill.storage.image_table import ImageTable, join_tables


def check_sources(params: ScoreParams) -> None:
    """Raise ValueError for nothing to score, a reference that is no row, and sources that cannot be opened."""
    if not params.names:
        raise ValueError("nothing to score; name folders with --params=score.images=FOLDER, or score.pipelines")
    if params.reference is not None and params.reference not in params.names:
        raise ValueError(f"score.reference is an {unknown_name('row', params.reference, params.names)}")
    for folder in params.images:
        read_folder(folder, params.skip_unreadable)
    for pipeline in params.pipelines:
        check_pipeline(pipeline)


def gather_images(
    params: ScoreParams, captions: pd.DataFrame | None, compute: ComputeParams, folder: Path
) -> ImageTable:
    """Images of every folder and pipeline, the index with ``method``.

    Raises ValueError for folders and pipelines that cannot be read.

    Args:
        params: The settings, validated.
        captions: Captions of the pipelines; None without pipelines.
        compute: Ranks, precision and sharding.
        folder: The run's folder; a finished run in it is taken as it is.

    Returns:
        All images, with their index.

    Raises:
        ValueError: A folder or a pipeline cannot be read.
    """
    tables = []
    for number, one in enumerate(params.images):
        target = folder / f"folder {number}"
        remove_made(target)
        tables.append(store_folder(one, params.skip_unreadable, params.batch_size, target))
    if captions is not None:
        plan = _plan(captions, params)
        for pipeline in params.pipelines:
            home = folder / f"sample {pipeline.name}"
            stored = store_frame(plan.assign(method=pipeline.name), home / "plan.parquet")
            job = PipelineJob(folder=home, compute=compute, params=pipeline, plan=stored, batch_size=params.batch_size)
            tables.append(ImageTable(launch(job) / "samples"))
    remove_made(folder / "samples")
    return join_tables(tables, pd.concat([table.index for table in tables], ignore_index=True), folder / "samples")


def _plan(captions: pd.DataFrame, params: ScoreParams) -> pd.DataFrame:
    """Captions and seeds that all pipelines share; a caption's seeds do not depend on how many captions there are."""
    rows = np.repeat(np.arange(len(captions)), params.images_per_caption)
    texts = captions["text"].to_numpy()[rows]
    return pd.DataFrame({"prompt_row": rows, "text": texts, "noise_seed": params.seed + np.arange(len(rows))})
