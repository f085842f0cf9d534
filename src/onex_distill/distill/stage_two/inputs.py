"""What every adversarial training reads beside the student that it refines."""

from pydantic import PositiveInt

from onex_distill.parameters import Params
from onex_distill.storage.model_folder import ModelFolder
from onex_distill.storage.tensor_table import TableFolder


class AdversarialInputs(Params):
    """The autoencoder and ``shift`` of the inference path, the real side, and the recogniser that may judge it.

    ``references`` holds ``image``; its index ``prompt_row`` (a row of ``embeddings``) and ``noise_seed``.
    ``reference_generator`` made them in ``reference_steps`` steps.
    """

    autoencoder: ModelFolder
    shift: float
    recogniser: ModelFolder
    reference_generator: ModelFolder
    reference_steps: PositiveInt
    embeddings: TableFolder
    references: TableFolder
