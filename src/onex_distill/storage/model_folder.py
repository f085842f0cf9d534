"""Models as folders: a path that is handed around, and loaded only where the weights are needed."""

import hashlib
import json
import math
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from safetensors import safe_open
from transformers import PreTrainedModel

from onex_distill.parameters import Params
from onex_distill.storage.files import absent, sha256_of
from onex_distill.storage.weights import PICKLES, find_weights, read_header, read_headers

CHECKSUMS = "checksums.json"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
TRUSTED_PACKAGES = ("diffusers", "transformers", "onex_distill")


class ModelFolder(Params):
    """A folder in its library's own format; ``class_name`` is dotted, for example ``diffusers.AutoencoderKL``."""

    path: Path
    class_name: str

    def load(self, **arguments: Any) -> Any:
        """The model in float32, from safetensors of this folder alone; nothing inside it is executed.

        Files of a variant (fp16) are read where there are no others. Raises ValueError when the folder is missing or
        damaged, or when its weights are not those of the architecture.
        """
        model_class = class_of(self.class_name)
        verify(self.path)
        info: dict[str, list[str]] = {}
        arguments = {"local_files_only": True, "use_safetensors": True, **arguments}
        if "torch_dtype" not in arguments:
            arguments.setdefault("dtype", torch.float32)
        if "variant" not in arguments:
            arguments["variant"] = self._variant(model_class)
        try:
            if issubclass(model_class, ModelMixin):
                model, info = model_class.from_pretrained(self.path, output_loading_info=True, **arguments)
            else:
                model = model_class.from_pretrained(self.path, **arguments)
        except MemoryError:
            raise
        except Exception as error:  # the libraries raise almost anything for files that they do not expect
            raise ValueError(f"{self.path} cannot be loaded as {self.class_name}: {_first_line(error)}") from error
        wrong = [*info.get("missing_keys", ()), *info.get("unexpected_keys", ()), *info.get("mismatched_keys", ())]
        if wrong:
            raise ValueError(
                f"{self.path} does not hold the weights of its config.json ({len(wrong)} tensors differ, the first is "
                f"{wrong[0]}); copy the whole folder again"
            )
        _forget_path(model)
        return model

    def load_as_stored(self) -> Any:
        """The model with every tensor in the dtype of its file, so that nothing is converted and pages stay mapped.

        Raises ValueError as ``load`` does.
        """
        weights = find_weights(self.path)
        dtype = stored_dtype(self.path)
        model = self.load(dtype=dtype)
        tensors = model.state_dict(keep_vars=True)
        for path in weights.files:
            with safe_open(path, framework="pt") as file:
                for name, header in read_header(path).items():
                    if DTYPES.get(header.dtype, dtype) != dtype:
                        tensors[name].data = file.get_tensor(name)
        return model

    def build(self) -> Any:
        """The architecture without weights, on the meta device: for shapes, sizes and FLOPs."""
        model_class = class_of(self.class_name)
        if issubclass(model_class, PreTrainedModel):
            config = model_class.config_class.from_pretrained(self.path, local_files_only=True)
            with torch.device("meta"):
                return model_class(config)
        with torch.device("meta"):
            return model_class.from_config(model_class.load_config(self.path, local_files_only=True))

    def _variant(self, model_class: Any) -> str | None:
        """The variant in the names of a model's weights, or of any part of a pipeline."""
        parts = [self.path]
        if issubclass(model_class, DiffusionPipeline):
            parts = sorted(path for path in self.path.iterdir() if any(path.glob("*.safetensors")))
        return next(filter(None, (find_weights(part).variant for part in parts)), None)

    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of all files."""
        if (self.path / CHECKSUMS).is_file():
            return hashlib.sha256((self.path / CHECKSUMS).read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps(_checksums(self.path)).encode()).hexdigest()


def class_of(name: str) -> Any:
    """The class of a dotted name. Raises ValueError for one outside the libraries that models come from."""
    module, _, attribute = name.rpartition(".")
    if module.split(".")[0] not in TRUSTED_PACKAGES:
        raise ValueError(f"class_name {name!r} is not from {', '.join(TRUSTED_PACKAGES)}; correct the catalog")
    return getattr(import_module(module), attribute)


def save_model(model: Any, folder: Path) -> None:
    """Write a model or a pipeline as safetensors, with the checksums of its files."""
    model.save_pretrained(folder, safe_serialization=True)
    (folder / CHECKSUMS).write_text(json.dumps(_checksums(folder), indent=0))


def verify(folder: Path) -> None:
    """Raise ValueError when the folder is missing, or a file is missing or differs from its recorded checksum."""
    if not folder.is_dir():
        raise ValueError(f"{absent(folder)}; put the model there, or correct its filepath in the catalog")
    if not (folder / CHECKSUMS).is_file():
        return
    try:
        recorded: dict[str, str] = dict(json.loads((folder / CHECKSUMS).read_text()))
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / CHECKSUMS} is damaged ({_first_line(error)}); copy the whole folder again"
        ) from error
    for name, checksum in recorded.items():
        if not (folder / name).is_file():
            raise ValueError(f"{folder} lacks the file {name}; copy the whole folder or make it again")
        if sha256_of(folder / name) != checksum:
            raise ValueError(f"{folder / name} is damaged (its checksum differs); copy it or make it again")


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype that most of a model's weights are stored in. Raises ValueError for a folder without safetensors.

    Single tensors may differ: position embeddings are float32 in some half-precision models.
    """
    sizes: Counter[str] = Counter()
    for header in read_headers(find_weights(folder)).values():
        if header.dtype in DTYPES:  # no integers, such as positions
            sizes[header.dtype] += math.prod(header.shape)
    return DTYPES[sizes.most_common(1)[0][0]]


def refuse_pickles(folder: Path) -> None:
    """Raise ValueError with one line when a component of a pipeline has pickled weights alone."""
    for part in sorted({path.parent for path in folder.rglob("*") if path.suffix in PICKLES}):
        find_weights(part)


def _checksums(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _forget_path(model: Any) -> None:
    """diffusers notes the folder that a model came from; what is saved later should not name paths of this machine."""
    for part in (model, *getattr(model, "components", {}).values()):
        if isinstance(part, ConfigMixin):
            part.register_to_config(_name_or_path="")
