"""Kedro datasets for what the project stores: captions, folders of models, tables of tensors, images."""

from onex_distill.datasets.captions import CaptionsDataset
from onex_distill.datasets.frames import CsvTableDataset, DocumentDataset, LossesDataset, TableDataset
from onex_distill.datasets.generated import GeneratedImagesDataset
from onex_distill.datasets.handles import HandlesDataset
from onex_distill.datasets.images import ImageTableDataset, PreviewedImageDataset
from onex_distill.datasets.models import ModelFolderDataset, TeacherDataset
from onex_distill.datasets.runs import RunsFolderDataset
from onex_distill.datasets.tables import LatentTableDataset, TensorTableDataset

__all__ = [
    "CaptionsDataset",
    "CsvTableDataset",
    "DocumentDataset",
    "GeneratedImagesDataset",
    "HandlesDataset",
    "ImageTableDataset",
    "LatentTableDataset",
    "LossesDataset",
    "ModelFolderDataset",
    "PreviewedImageDataset",
    "RunsFolderDataset",
    "TableDataset",
    "TeacherDataset",
    "TensorTableDataset",
]
