"""The best, the median and the worst captions of a method."""

import pandas as pd
from PIL import Image

from onex_distill.evaluation.report.columns import PRIMARY, described, number
from onex_distill.metrics.labelled import labelled_grid
from onex_distill.storage.image_table import ImageTable


def extremes_grid(table: ImageTable, prompts: pd.DataFrame, count: int) -> Image.Image:
    """Captions by their score, best, median and worst, ``count`` of each, with caption and score below an image.

    ``prompts`` holds the method's rows of the table of prompts; without a score its captions keep their order.
    """
    metric = next((name for name in PRIMARY if name in prompts and prompts[name].notna().any()), None)
    ranked = prompts if metric is None else prompts.sort_values(metric, ascending=False, kind="stable")
    count = min(count, len(ranked))
    middle = (len(ranked) - count) // 2
    chosen = {"best": ranked.head(count), "median": ranked.iloc[middle : middle + count], "worst": ranked.tail(count)}
    first = table.index.reset_index(drop=True).drop_duplicates("prompt_row")
    places = dict(zip(first["prompt_row"], first.index, strict=True))
    rows, notes = [], []
    for name, part in chosen.items():
        rows.append((name, table.pictures([places[row] for row in part["prompt_row"]])))
        notes.append([_note(row, metric) for _, row in part.iterrows()])
    return labelled_grid(rows, [""] * count, notes)


def _note(row: pd.Series, metric: str | None) -> str:
    if metric is None:
        return str(row["text"])
    return f"{number(row[metric], described(metric).digits)} {row['text']}"
