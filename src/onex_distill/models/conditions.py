"""What every training and sampling stands on, as one value of paths that nodes and jobs hand around."""

from onex_distill.models.teacher import TeacherFolder
from onex_distill.parameters import Params
from onex_distill.storage.tensor_table import TableFolder


class Conditions(Params):
    """The teacher, the embeddings of all captions, and those of the empty prompt that guidance needs."""

    teacher: TeacherFolder
    embeddings: TableFolder
    empty: TableFolder
