"""A detector of objects, for the rules of GenEval; its column is GenEval-style, since the original's is another one.

Shapes: N images, K objects.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection

from onex_distill.evaluation.scorers.base import Images, NetworkParams
from onex_distill.evaluation.scorers.clip import Clip, ClipParams
from onex_distill.evaluation.scorers.recipes import pil_images
from onex_distill.evaluation.scorers.states import build, read_state
from onex_distill.evaluation.scorers.weights import Source
from onex_distill.metrics.geneval import THRESHOLD, Detection, read_cases

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
FIELDS = 7
"""Numbers per object: score, class, left, top, right, bottom (pixels), and colour."""
ABSENT = -1.0
CLASSES, CASES = "classes.json", "cases.jsonl"
"""The notes with the names of classes and with the benchmark's cases."""
SPELLINGS = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "keyboard": "computer keyboard",
    "motorbike": "motorcycle",
    "mouse": "computer mouse",
    "pottedplant": "potted plant",
    "remote": "tv remote",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""Classes that GenEval calls otherwise than detectors of COCO do."""


class DetectorParams(NetworkParams):
    """Any detector of transformers (config.json, preprocessor_config.json and a safetensors file) with COCO's names.

    ``colours`` is the CLIP that names the colour of each object, ``cases`` the benchmark's
    ``evaluation_metadata.jsonl``. At most ``objects`` are kept per image, the best ones.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"objects"})
    kind: Literal["detector"] = "detector"
    weights: Source
    colours: ClipParams
    cases: Source
    objects: int = 100

    def sources(self) -> Mapping[str, Source]:
        """The detector's files, the cases and the files of the CLIP."""
        return {
            "weights": self.weights,
            "cases": self.cases,
            **{f"colours_{name}": one for name, one in self.colours.sources().items()},
        }

    def recipe(self) -> str:
        """The detector's own preprocessing."""
        return "preprocessor_config.json"

    def notes(self, folders: Mapping[str, Path]) -> Sequence[tuple[str, str]]:
        """Names of classes by number, as GenEval spells them, and the cases."""
        labels = AutoConfig.from_pretrained(folders["weights"], local_files_only=True).id2label
        names = {number: SPELLINGS.get(name, name) for number, name in labels.items()}
        return ((CLASSES, json.dumps(names)), (CASES, (folders["cases"] / self.cases.files[0].name).read_text()))

    def open(self, folders: Mapping[str, Path], device: torch.device) -> "Detector":
        """The detector and its CLIP."""
        folder = folders["weights"]
        path = folder / next(file.name for file in self.weights.files if file.name.endswith(".safetensors"))
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model_class = type(AutoModelForObjectDetection.from_config(config))
        model = build(model_class, config, read_state(path), path).to(device)
        process = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        own = {name.removeprefix("colours_"): one for name, one in folders.items() if name.startswith("colours_")}
        prompts = {case.prompt for case in read_cases(folders["cases"] / self.cases.files[0].name)}
        return Detector(model, process, self.colours.open(own, device), prompts, self.objects)


class Detector:
    """The loaded detector."""

    def __init__(self, model: Any, process: Any, clip: Clip, prompts: Collection[str], objects: int) -> None:
        self.model, self.process, self.clip, self.prompts, self.objects = model, process, clip, prompts, objects

    @torch.no_grad()
    def features(self, images: Images, captions: Sequence[str]) -> dict[str, Tensor]:
        """``objects`` (N, K, 7): score, class, box in pixels, place of the colour in ``COLOURS``; -1 where none is.

        An image whose caption is no prompt of the cases is not looked at, and its row is NaN.
        """
        rows = torch.full((len(captions), self.objects, FIELDS), ABSENT)
        for place, (image, caption) in enumerate(zip(pil_images(images), captions, strict=True)):
            if caption not in self.prompts:
                rows[place] = torch.nan
                continue
            inputs = self.process(images=[image], return_tensors="pt").to(self.model.device)
            sizes = [(image.height, image.width)]
            found = self.process.post_process_object_detection(
                self.model(**inputs), threshold=THRESHOLD, target_sizes=sizes
            )[0]
            best = found["scores"].argsort(descending=True)[: self.objects]
            for index, one in enumerate(best.tolist()):
                box = found["boxes"][one].float().cpu()
                label = int(found["labels"][one])
                colour = self._colour(image, box, self.model.config.id2label[label])
                rows[place, index] = torch.tensor([float(found["scores"][one]), label, *box.tolist(), colour])
        return {"objects": rows}

    def _colour(self, image: Image.Image, box: Tensor, name: str) -> float:
        """The place of the colour whose caption is nearest to the object's part; none for an empty part."""
        left, top, right, bottom = (round(side) for side in box.tolist())
        part = image.crop((max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)))
        if min(part.size) < 1:
            return ABSENT
        texts = self.clip.texts([f"a photo of a {colour} {name}" for colour in COLOURS])
        return float((self.clip.images([part]) @ texts.T).argmax())


def detections(objects: Tensor, names: Mapping[int, str]) -> list[Detection]:
    """The objects (K, 7) of one image as GenEval's rules read them."""
    found = []
    for score, label, left, top, right, bottom, colour in objects.tolist():
        if score != ABSENT:
            shown = COLOURS[int(colour)] if colour != ABSENT else ""
            found.append(Detection(names[int(label)], score, (left, top, right, bottom), shown))
    return found
