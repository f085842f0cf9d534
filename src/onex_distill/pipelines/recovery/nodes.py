"""The picture of what compensation recovers."""

import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure


def plot_recovery(table: pd.DataFrame) -> Figure:
    """Distance to the uncached images against alignment, a mark per seed, a panel per training."""
    return px.scatter(
        table,
        x="fid_uncached",
        y="alignment",
        color="method",
        symbol="method",
        facet_col="training",
        hover_data="seed",
        height=450,
    )
