"""All metrics of one set of images as a row of a table, in one place for every study.

Shapes: N images, uint8 (N, 3, H, W); captions and groups name the prompt of each.
"""

import pandas as pd
import torch
from torch import Tensor

from onex_distill.metrics.distances import diversity, frechet_distance
from onex_distill.shapes.attributes import alignment, entropies, total_variation
from onex_distill.shapes.captions import named_attributes
from onex_distill.shapes.features import extract_features
from onex_distill.shapes.networks import ShapesReader
from onex_distill.shapes.world import FREE
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TensorTable


def score_methods(evaluator: ModelFolder, reference: TensorTable, samples: dict[str, TensorTable]) -> pd.DataFrame:
    """A row per set of images by its name as ``method``; distances are to the images of ``reference``."""
    reader = evaluator.load()
    known = extract_features(reader, reference.column("image"))
    return pd.DataFrame([{"method": name} | score_table(reader, table, known) for name, table in samples.items()])


def score_table(
    reader: ShapesReader, table: TensorTable, reference: Tensor, index: pd.DataFrame | None = None
) -> dict[str, float]:
    """``score_images`` of a table, or of the rows that ``index``, a part of its own, is left with."""
    chosen = table.index if index is None else index
    groups = torch.tensor(chosen["prompt_row"].to_list())
    images = table.read("image", chosen.index.to_numpy())
    return score_images(reader, images, chosen["text"].tolist(), groups, reference)


@torch.no_grad()
def score_images(
    evaluator: ShapesReader, images: Tensor, captions: list[str], groups: Tensor, reference: Tensor
) -> dict[str, float]:
    """Alignment, diversity, FID to ``reference`` features (M, D), entropies (nats) and total variations.

    ``groups`` is int (N,): images of one group share their caption. Raises ValueError for a caption that does not name
    all attributes.
    """
    named = named_attributes(captions)
    batches = [evaluator.read(batch.float() / 255) for batch in images.split(256)]
    read = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    features = extract_features(evaluator, images)
    return {
        "alignment": alignment(read, named),
        "diversity": diversity(features, groups),
        "fid": frechet_distance(features, reference),
        **{f"entropy_{name}": value for name, value in entropies(read, named).items()},
        **{f"total_variation_{name}": total_variation(name, read, named) for name in FREE},
    }
