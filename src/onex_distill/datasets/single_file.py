"""A checkpoint in one file of the original layout, made into the folder that the project works with."""

import shutil
from pathlib import Path

from diffusers import AutoencoderKL, SD3Transformer2DModel
from kedro.io.core import DatasetError

from onex_distill.storage.files import absent
from onex_distill.storage.weights import read_header

PARTS = {"transformer": SD3Transformer2DModel, "vae": AutoencoderKL}


def unpack_single_file(checkpoint: Path, config: Path, folder: Path) -> None:
    """Write a .safetensors checkpoint as a diffusers folder, through diffusers and without the network.

    Transformer and autoencoder come from the checkpoint, in float32; their configurations and all other components
    (scheduler, tokenizers, text encoders with their weights) are those of the folder ``config``.

    Raises:
        DatasetError: With one line when either is missing, or the checkpoint is none of Stable Diffusion 3's.
    """
    if checkpoint.suffix != ".safetensors":
        raise DatasetError(f"{checkpoint} is no .safetensors file; other checkpoints can run code and are not read")
    if not checkpoint.is_file():
        raise DatasetError(f"{absent(checkpoint)}; put the checkpoint there, or correct single_file in the catalog")
    if not (config / "model_index.json").is_file():
        raise DatasetError(f"{config} holds no model_index.json; point config to the checkpoint's diffusers folder")
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        read_header(checkpoint)
        weights = shutil.ignore_patterns("*.safetensors", "*.safetensors.index*.json", "checksums.json")
        for path in config.iterdir():
            if path.is_dir():
                shutil.copytree(path, partial / path.name, ignore=weights if path.name in PARTS else None)
            elif path.name != "checksums.json":
                shutil.copy(path, partial)
        for name, model_class in PARTS.items():
            original = str(checkpoint)
            part = model_class.from_single_file(original, config=str(config), subfolder=name, local_files_only=True)
            part.float().save_pretrained(partial / name)
    except Exception as error:  # diffusers raises almost anything for keys that it does not expect
        shutil.rmtree(partial, ignore_errors=True)
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DatasetError(f"{checkpoint} cannot be read as a Stable Diffusion 3 checkpoint: {reason}") from error
    partial.rename(folder)
