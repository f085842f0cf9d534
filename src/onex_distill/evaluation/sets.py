"""All methods of a table as one artefact: handles of their features, and of their images."""

from onex_distill.evaluation.scored import Scored
from onex_distill.parameters import Params
from onex_distill.storage.image_table import ImageFolder, ImageTable
from onex_distill.storage.tensor_table import TableFolder

REFERENCE = "teacher"
NULL = "teacher_null"
TARGET = "teacher_alpha"  # what a student should become


class FeatureSets(Params):
    """Keys of methods in the order of the table, each with its features."""

    methods: tuple[tuple[str, TableFolder], ...]

    def scored(self) -> list[Scored]:
        """All methods."""
        return [Scored(key, folder.open()) for key, folder in self.methods]

    def reference(self) -> Scored:
        """The teacher."""
        return next(one for one in self.scored() if one.key == REFERENCE)


class SampleSets(Params):
    """Keys of methods in the order of the table, each with its images."""

    methods: tuple[tuple[str, ImageFolder], ...]

    def tables(self) -> dict[str, ImageTable]:
        """All methods."""
        return {key: folder.open() for key, folder in self.methods}
