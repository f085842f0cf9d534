"""Nodes that get and convert the files of scorers."""

import pandas as pd

from onex_distill.evaluation.features import ScorersParams
from onex_distill.evaluation.scorers.files import convert_files, fetch_files


def fetch_scorers(scorers: ScorersParams) -> pd.DataFrame:
    """Download what the networks name and is not there; a row per file."""
    return fetch_files(scorers.networks, scorers.folder)


def convert_scorers(scorers: ScorersParams) -> pd.DataFrame:
    """Make safetensors of fetched pickles; a row per file."""
    return convert_files(scorers.networks, scorers.folder)
