"""Kedro's tables and texts with the previews that kedro viz shows of them."""

import json

import pandas as pd
from kedro_datasets._typing import HTMLPreview, PlotlyPreview, TablePreview
from kedro_datasets.pandas import CSVDataset, ParquetDataset
from kedro_datasets.text import TextDataset

from onex_distill.datasets.previews import body_of, rounded


class TableDataset(ParquetDataset):
    """Parquet; previewed by its first rows, rounded."""

    def preview(self, nrows: int = 20) -> TablePreview:
        """The first rows."""
        return rounded(self.load().head(nrows))


class CsvTableDataset(CSVDataset):
    """CSV; previewed by its first rows, rounded."""

    def preview(self, nrows: int = 20) -> TablePreview:
        """The first rows."""
        return rounded(self.load().head(nrows))


class LossesDataset(ParquetDataset):
    """The losses of one training, a row per step; previewed as a plot."""

    def preview(self) -> PlotlyPreview:
        """Every loss over the steps."""
        import plotly.express as px  # not for a catalog that is only listed

        table: pd.DataFrame = self.load()
        columns = [str(name) for name in table.columns if str(name).endswith("loss")]
        long = table.melt("step", columns, var_name="loss").dropna()
        figure = px.line(long, x="step", y="value", color="loss", title="Losses")
        return PlotlyPreview(json.loads(figure.to_json()))


class DocumentDataset(TextDataset):
    """A page or a text; previewed as a reader sees it."""

    def preview(self) -> HTMLPreview:
        """The page's body, or the text."""
        return body_of(self.load())
