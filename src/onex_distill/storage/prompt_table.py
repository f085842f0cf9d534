"""Captions to a prompt table: checked, identified, split, and traceable to their source.

Columns of the result: ``id``, ``text``, ``split`` (train, reference or heldout), ``source_hash``.
"""

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

SPLITS = ("train", "reference", "heldout")
TRAINED = ("train", "reference")
CHUNK = 1 << 18  # rows
SHOWN = 5  # bad captions named in one message
_SPLIT_OF_BUCKET = ("heldout", "reference") + ("train",) * 6


def split_of(text: str) -> str:
    """The split of a caption by a hash of its text: an eighth held out, an eighth for references, the rest to train."""
    digest = hashlib.sha256(text.encode()).digest()
    return _SPLIT_OF_BUCKET[digest[0] % len(_SPLIT_OF_BUCKET)]


def build_prompt_table(captions: pd.DataFrame) -> pd.DataFrame:
    """Check captions and complete the columns that they lack.

    Raises ValueError for an empty table, a caption that is no text or has no letter, a missing or duplicate id, or an
    unknown or empty split.
    """
    if "text" not in captions.columns:
        raise ValueError(f"the captions need a column 'text'; found {list(captions.columns)}")
    if captions.empty:
        raise ValueError("the captions file holds no caption; add at least one line of text")
    table = captions.reset_index(drop=True)
    table["text"] = _by_chunk(_texts, table["text"])
    if "id" not in table:
        table["id"] = pd.RangeIndex(len(table)).astype(str).str.zfill(7).to_series(index=table.index).radd("caption-")
    _require_ids(table["id"])
    if "split" not in table:
        table["split"] = _by_chunk(lambda texts: texts.map(split_of), table["text"])
    unknown = {str(split) for split in table["split"] if not isinstance(split, str) or split not in SPLITS}
    if unknown:
        raise ValueError(f"unknown split {min(unknown)!r}; a split is one of {', '.join(SPLITS)}")
    digest = hashlib.sha256()
    for start in range(0, len(table), CHUNK):
        chunk = table[["id", "text"]].iloc[start : start + CHUNK]
        digest.update(pd.util.hash_pandas_object(chunk, index=False).to_numpy().tobytes())
    table["split"] = table["split"].astype("category")
    table["source_hash"] = pd.Categorical.from_codes(
        np.zeros(len(table), dtype=np.int8), pd.Index([digest.hexdigest()])
    )
    return table[["id", "text", "split", "source_hash"]]


def join_prompts(
    training: pd.DataFrame, evaluation: pd.DataFrame, counts: Mapping[str, int | None], seed: int
) -> pd.DataFrame:
    """One table of what a run draws: trainings from ``training``, the held-out rows of ``evaluation`` at its end.

    A caption that the evaluation holds out is never trained on, in whatever split its file has it.

    Args:
        training: A prompt table, of which the splits train and reference are kept.
        evaluation: A prompt table, of which the split heldout is kept; it may be the same one.
        counts: Rows to keep of each split, chosen by ``seed``; all where None. Held-out rows stay in drawn order.
        seed: Of the choice.

    Returns:
        A prompt table.

    Raises:
        ValueError: When ``evaluation`` holds nothing out, or ids are not unique.
    """
    heldout = evaluation.iloc[draw_rows(rows_of_split(evaluation, "heldout"), counts.get("heldout"), seed)]
    others = training[(training["split"] != "heldout") & ~training["text"].isin(set(evaluation_texts(evaluation)))]
    kept = [np.sort(draw_rows(np.flatnonzero(others["split"] == name), counts.get(name), seed)) for name in TRAINED]
    trained = others.iloc[np.sort(np.concatenate(kept))]
    if set(heldout["id"]) & set(trained["id"]):
        heldout = heldout.assign(id="evaluation-" + heldout["id"].astype(str))
    return pd.concat([trained, heldout], ignore_index=True).astype({"split": "category", "source_hash": "category"})


def evaluation_texts(evaluation: pd.DataFrame) -> list[str]:
    """The captions that are held out."""
    texts: list[str] = evaluation.loc[evaluation["split"] == "heldout", "text"].tolist()
    return texts


def draw_rows(rows: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """At most ``count`` of the rows, in the order of a seed; all of them, as they are, where there is no count."""
    if count is None:
        return rows
    import torch  # captions are read, and catalogs drawn, without it

    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order.numpy()[:count]]


def rows_of_split(prompts: pd.DataFrame, split: str) -> np.ndarray:
    """Row numbers of one split. Raises ValueError when it is empty."""
    rows = np.flatnonzero(prompts["split"] == split)
    if not len(rows):
        raise ValueError(f"no caption is in the split {split!r}; add captions or a 'split' column")
    return rows


def _by_chunk(function: Callable[[pd.Series], pd.Series], column: pd.Series) -> pd.Series:
    """Apply to so many rows at a time that Python objects never stand for the whole column."""
    return pd.concat([function(column.iloc[start : start + CHUNK]) for start in range(0, len(column), CHUNK)])


def fault_of(text: object) -> str | None:
    """Why a caption cannot be used; None for text with a letter or digit of any script."""
    if text is None or (isinstance(text, float) and np.isnan(text)):
        return "is empty"
    if not isinstance(text, str):
        return f"is no text ({str(text)[:40]!r})"
    if not text.strip():
        return "is empty"
    return None if any(sign.isalnum() for sign in text) else f"has no letter or digit ({text.strip()[:40]!r})"


def _texts(column: pd.Series) -> pd.Series:
    """Captions without the space around them. Raises ValueError that names the first ones that cannot be used."""
    faults = [(place, fault) for place, fault in enumerate(map(fault_of, column), 1 + int(column.index[0])) if fault]
    wrong = [f"caption {place} {fault}" for place, fault in faults]
    if wrong:
        named = ", ".join(wrong[:SHOWN])
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ValueError(f"{named}{more}; remove or correct them")
    return column.astype(str).str.strip()


def _require_ids(ids: pd.Series) -> None:
    wrong = ids[ids.isna() | ~ids.map(lambda name: isinstance(name, str | int | float)).astype(bool)]
    if not wrong.empty:
        raise ValueError(f"caption {wrong.index[0] + 1} has no id that is text or a number; give every caption one")
    duplicated = ids[ids.duplicated()]
    if not duplicated.empty:
        raise ValueError(f"caption id {duplicated.iloc[0]!r} occurs more than once; ids must be unique")
