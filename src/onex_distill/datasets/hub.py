"""Fetching a published teacher, with one clear line when that is not possible."""

import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from kedro.io.core import DatasetError

PATTERNS = ("model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model")


def download_teacher(model: str, folder: Path) -> None:
    """Download a pipeline's configs, tokenizers and safetensors into ``folder``; nothing else, no code, no pickle.

    Raises DatasetError with the remedy for a gated, unknown or unreachable model.
    """
    partial = folder.with_name(f".partial-{folder.name}")
    try:
        snapshot_download(model, local_dir=partial, allow_patterns=list(PATTERNS))
    except GatedRepoError as error:
        raise DatasetError(
            f"{model} is gated: accept its licence on its model page, then log in with `hf auth login` "
            f"(or set HF_TOKEN), or put a copy at {folder}"
        ) from error
    except RepositoryNotFoundError as error:
        raise DatasetError(
            f"the hub has no model {model!r}, or it is private; correct hub_model, or put a copy at {folder}"
        ) from error
    except Exception as error:  # of the hub, of the disk, or of whichever HTTP library the hub uses
        raise DatasetError(
            f"{model} cannot be fetched from the hub ({type(error).__name__}); check the network, or put a copy at "
            f"{folder}"
        ) from error
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    partial.rename(folder)
