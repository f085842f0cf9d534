"""Captions to a prompt table: checked, identified, split, and traceable to their source.

Columns of the result: ``id``, ``text``, ``split`` (train, reference or heldout), ``source_hash``.
"""

import hashlib

import pandas as pd

SPLITS = ("train", "reference", "heldout")
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
    table["text"] = _texts(table["text"])
    if "id" not in table:
        table["id"] = [f"caption-{i:07d}" for i in range(len(table))]
    _require_ids(table["id"])
    if "split" not in table:
        table["split"] = table["text"].map(split_of)
    unknown = {str(split) for split in table["split"] if not isinstance(split, str) or split not in SPLITS}
    if unknown:
        raise ValueError(f"unknown split {min(unknown)!r}; a split is one of {', '.join(SPLITS)}")
    digest = hashlib.sha256(pd.util.hash_pandas_object(table[["id", "text"]], index=False).to_numpy().tobytes())
    table["source_hash"] = digest.hexdigest()
    return table[["id", "text", "split", "source_hash"]].reset_index(drop=True)


def rows_of_split(prompts: pd.DataFrame, split: str) -> list[int]:
    """Row numbers of one split. Raises ValueError when it is empty."""
    rows = [int(row) for row in (prompts["split"] == split).to_numpy().nonzero()[0]]
    if not rows:
        raise ValueError(f"no caption is in the split {split!r}; add captions or a 'split' column")
    return rows


def _texts(column: pd.Series) -> pd.Series:
    """Captions without the space around them. Raises ValueError for one that is no text or has no letter."""
    known = column.notna()
    other = column[known & ~column.map(lambda text: isinstance(text, str)).astype(bool)]
    if not other.empty:
        raise ValueError(f"caption {other.index[0] + 1} is no text: {str(other.iloc[0])!r}; put it in quotes")
    texts = column.astype(object).where(known, "").astype(str).str.strip()
    wrong = texts[~texts.str.contains(r"[^\W\d_]", regex=True)]
    if not wrong.empty:
        raise ValueError(f"caption {wrong.index[0] + 1} has no letters: {wrong.iloc[0]!r}; remove or correct it")
    return texts


def _require_ids(ids: pd.Series) -> None:
    wrong = ids[ids.isna() | ~ids.map(lambda name: isinstance(name, str | int | float)).astype(bool)]
    if not wrong.empty:
        raise ValueError(f"caption {wrong.index[0] + 1} has no id that is text or a number; give every caption one")
    duplicated = ids[ids.duplicated()]
    if not duplicated.empty:
        raise ValueError(f"caption id {duplicated.iloc[0]!r} occurs more than once; ids must be unique")
