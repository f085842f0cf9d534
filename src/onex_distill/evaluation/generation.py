"""Images of a captions file, written one by one: PNGs that name their caption and settings, and a contact sheet.

An image's noise follows from (seed, caption, number of the image), so that more captions, more images or another order
change no other image. An interrupted job goes on with the images that are missing.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from onex_distill.bars import Bar
from onex_distill.cache.export import FractionalStableDiffusion3Pipeline
from onex_distill.cache.plan import effective_nfe
from onex_distill.engine.job import Job
from onex_distill.engine.randomness import seed_of
from onex_distill.engine.run import Run
from onex_distill.errors import Interrupted
from onex_distill.models.teacher import TeacherFolder
from onex_distill.models.text import count_truncated
from onex_distill.parameters import Params, Seed
from onex_distill.storage.files import complete, write_text
from onex_distill.storage.frame import FrameFile
from onex_distill.storage.model_folder import ModelFolder

logger = logging.getLogger(__name__)

METADATA = "metadata.jsonl"
TEACHER = "teacher"  # the subfolder of the teacher's images
SHEET_CAPTIONS, SHEET_IMAGES = 32, 8
LABEL_HEIGHT, MARGIN, SMALLEST = 18, 4, 96  # pixels


class TeacherParams(Params):
    """How the teacher samples beside the student."""

    num_inference_steps: PositiveInt
    guidance_scale: NonNegativeFloat


class GenerationParams(Params):
    """What the student makes of a captions file.

    ``nfe`` chooses among a student's budgets, ``num_inference_steps`` and ``size`` (height, width in pixels) replace
    those that it was trained for; null keeps them. With ``teacher`` the teacher samples the same noise. ``batch_size``
    counts images.
    """

    seed: Seed
    images_per_caption: PositiveInt
    batch_size: PositiveInt
    nfe: PositiveFloat | None
    num_inference_steps: PositiveInt | None
    size: tuple[PositiveInt, PositiveInt] | None
    teacher: TeacherParams | None


class Wanted(NamedTuple):
    """One image to be made: its file's name, its caption, and the seed of its noise."""

    file_name: str
    text: str
    seed: int


class GenerationJob(Job):
    """PNGs and ``metadata.jsonl`` of every caption; the teacher's, if asked for, in a folder of their own."""

    student: ModelFolder
    teacher: TeacherFolder
    captions: FrameFile
    params: GenerationParams

    def run(self, run: Run) -> None:
        """Write the images into ``images``. Raises Interrupted after a request to stop; what is written stays."""
        wanted = wanted_images(self.captions.read()["text"].tolist(), self.params)
        student: FractionalStableDiffusion3Pipeline = self.student.load().to(run.ranks.device)
        if run.ranks.is_first:
            texts = list(dict.fromkeys(image.text for image in wanted))
            count_truncated(student, texts, student.config.max_sequence_length)
        settings = _given(
            num_inference_steps=self.params.num_inference_steps,
            height=self.params.size and self.params.size[0],
            width=self.params.size and self.params.size[1],
        )
        folder = run.result / "images"
        notes = self._notes(student, self.student.path)
        budget = {**settings, **_given(nfe=self.params.nfe)}
        make_images(student, wanted, budget, folder, self.params.batch_size, run, notes | _student_notes(student, self))
        if self.params.teacher is not None:
            del student
            teacher = self.teacher.load().to(run.ranks.device)
            length = {"max_sequence_length": self.student_length()}
            guided = {**settings, **self.params.teacher.model_dump(), **length}
            notes = self._notes(teacher, self.teacher.path) | _teacher_notes(self.params.teacher)
            make_images(teacher, wanted, guided, folder / TEACHER, self.params.batch_size, run, notes)

    def _notes(self, pipeline: StableDiffusion3Pipeline, path: Path) -> dict[str, Any]:
        """What made an image, and its size."""
        side = pipeline.default_sample_size * pipeline.vae_scale_factor
        height, width = self.params.size or (side, side)
        return {"model": f"{path.parent.name}/{path.name}", "height": height, "width": width}

    def student_length(self) -> int:
        """Tokens of the T5 part of the student's embeddings."""
        config = FractionalStableDiffusion3Pipeline.load_config(self.student.path, local_files_only=True)
        return int(config["max_sequence_length"])


def wanted_images(texts: Sequence[str], params: GenerationParams) -> list[Wanted]:
    """All images, caption by caption; a caption that is there twice has the same images twice."""
    return [
        Wanted(f"{row:05d}-{number:02d}.png", text, seed_of(params.seed, number, text))
        for row, text in enumerate(texts)
        for number in range(params.images_per_caption)
    ]


def make_images(
    pipeline: StableDiffusion3Pipeline,
    wanted: Sequence[Wanted],
    settings: dict[str, Any],
    folder: Path,
    batch_size: int,
    run: Run,
    notes: Mapping[str, Any],
) -> None:
    """Write the images that are missing in ``folder``, this rank's share of them, and the metadata of all.

    Args:
        pipeline: What is called with captions, generators and ``settings``.
        wanted: All images.
        settings: Other arguments of the call.
        folder: Where the images go.
        batch_size: Images per call.
        run: Whose ranks share the work, and whose requests to stop are heard.
        notes: What is written into every file beside its name, caption and seed.

    Raises:
        Interrupted: After a request to stop.
    """
    pipeline.set_progress_bar_config(disable=True)
    folder.mkdir(parents=True, exist_ok=True)
    batches = [wanted[start : start + batch_size] for start in range(0, len(wanted), batch_size)]
    rounds = range(0, len(batches), run.ranks.count)
    with run.watching_signals(), Bar("generating", len(rounds), "batches", shown=run.ranks.is_first) as bar:
        for first in rounds:
            number = first + run.ranks.index
            if number < len(batches):
                _make_batch(pipeline, batches[number], settings, notes, folder)
            if run.stop_requested() and first != rounds[-1]:
                made = len(list(folder.glob("*.png")))
                raise Interrupted(f"generating was stopped; {made} of {len(wanted)} images are written")
            bar.advance()
    run.ranks.wait()
    if run.ranks.is_first:
        lines = [json.dumps(_record(image, notes), ensure_ascii=False) for image in wanted]
        write_text(folder / METADATA, "\n".join(lines) + "\n")


def contact_sheet(folder: Path) -> Image.Image:
    """The first images of the first captions, a row per caption under its text.

    The teacher's images follow the student's, with a line that says so. Small images are enlarged without smoothing.
    """
    records = [json.loads(line) for line in (folder / METADATA).read_text(encoding="utf-8").splitlines()]
    rows: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        rows.setdefault(record["file_name"].partition("-")[0], []).append(record)
    shown = list(rows.values())[:SHEET_CAPTIONS]
    folders = [folder] + [folder / TEACHER] * (folder / TEACHER).is_dir()
    lines = [[place / r["file_name"] for place in folders for r in row[:SHEET_IMAGES]] for row in shown]
    with Image.open(lines[0][0]) as first:
        factor = max(1, -(-SMALLEST // first.width))
        width, height = first.width * factor, first.height * factor
    row_height = LABEL_HEIGHT + height + MARGIN
    breadth = max(len(line) for line in lines) * (width + MARGIN) + MARGIN
    head = LABEL_HEIGHT if len(folders) > 1 else 0
    sheet = Image.new("RGB", (breadth, head + row_height * len(lines) + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, name in enumerate(("student", TEACHER) if head else ()):
        draw.text((MARGIN + number * len(lines[0]) // 2 * (width + MARGIN), 2), name, fill="black", font=font)
    for number, (row, line) in enumerate(zip(shown, lines, strict=True)):
        top = head + number * row_height + MARGIN
        draw.text((MARGIN, top), row[0]["text"], fill="black", font=font)
        for column, path in enumerate(line):
            with Image.open(path) as image:
                enlarged = image.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (MARGIN + column * (width + MARGIN), top + LABEL_HEIGHT))
    return sheet


def warn_of_unknown_words(texts: Sequence[str], known: Sequence[str]) -> list[str]:
    """The words of ``texts`` that none of the ``known`` captions has, with a warning that names some of them."""
    vocabulary = {word for text in known for word in _words(text)}
    unknown = list(dict.fromkeys(word for text in texts for word in _words(text) if word not in vocabulary))
    if unknown:
        logger.warning(
            "No caption that the student was trained on has these words, which may mean nothing to it: %s.",
            ", ".join(unknown[:10]) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""),
        )
    return unknown


def _make_batch(
    pipeline: StableDiffusion3Pipeline,
    batch: Sequence[Wanted],
    settings: dict[str, Any],
    notes: Mapping[str, Any],
    folder: Path,
) -> None:
    if all((folder / image.file_name).is_file() for image in batch):
        return
    generators = [torch.Generator().manual_seed(image.seed) for image in batch]
    made = pipeline([image.text for image in batch], generator=generators, **settings).images
    for image, pixels in zip(batch, made, strict=True):
        information = PngInfo()
        for name, value in _record(image, notes).items():
            information.add_itxt(name, str(value))
        with complete(folder / image.file_name) as partial:
            pixels.save(partial, format="PNG", pnginfo=information)


def _record(image: Wanted, notes: Mapping[str, Any]) -> dict[str, Any]:
    return {**image._asdict(), **notes}


def _student_notes(student: FractionalStableDiffusion3Pipeline, job: GenerationJob) -> dict[str, Any]:
    """Steps, guidance and the evaluations that they really cost."""
    steps, nfe = job.params.num_inference_steps or student.config.num_inference_steps, job.params.nfe
    blocks = len(student.transformer.transformer_blocks)
    spent = steps if student.compensation is None else effective_nfe(student.cache_plan(steps, nfe), blocks)
    return {"num_inference_steps": steps, "guidance_scale": 1.0, "nfe": round(spent, 4)}


def _teacher_notes(params: TeacherParams) -> dict[str, Any]:
    """Steps, guidance and evaluations; guidance needs two per step."""
    passes = 2 if params.guidance_scale > 1 else 1
    return {**params.model_dump(), "nfe": passes * params.num_inference_steps}


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _words(text: str) -> list[str]:
    words = (word.strip(".,;:!?\"'()").lower() for word in text.split())
    return [word for word in words if word]
