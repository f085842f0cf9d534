"""The parts of ``true_size.py``: a model of the true shape with random weights, one update or sample by the trainers.

    python benchmarks/true_size_parts.py PART FOLDER CONF DEVICE   # ends with one JSON line

Latents are as large as the folder's model wants them; prompts are random embeddings of the true length.
"""

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import timm
import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from safetensors.torch import save_file
from torch import nn

from onex_distill.cache.compensation import Compensation
from onex_distill.distill.cotraining.job import CotrainingJob
from onex_distill.distill.cotraining.trainer import CotrainingTrainer
from onex_distill.distill.planner import Need, sampling_need, stage_one_need, stage_two_need
from onex_distill.distill.stage_one.trainer import StageOneJob, StageOneTrainer
from onex_distill.distill.stage_two.backbones import TimmParams
from onex_distill.distill.stage_two.job import AdversarialJob
from onex_distill.distill.stage_two.trainer import AdversarialTrainer
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.optimisation import OptimizerParams
from onex_distill.engine.randomness import seeded
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import Run
from onex_distill.evaluation.jobs import SamplingJob, latents_job
from onex_distill.evaluation.params import MethodParams
from onex_distill.models.conditions import Conditions
from onex_distill.models.teacher import TeacherFolder
from onex_distill.storage.model_folder import ModelFolder, save_model
from onex_distill.storage.tensor_table import TableFolder, TensorTable
from published_models import PublishedModel, write_configs

PROJECT = Path(__file__).parents[1]
PARTS = ("stage_one", "stage_two", "cotraining", "sample")
TOKENS, PROMPTS, PAUSE = 333, 4, 0.2
COMPENSATION = "onex_distill.Compensation"
READER = ModelFolder(path=PROJECT / "data/01_raw/recogniser", class_name="onex_distill.shapes.networks.ShapesReader")


def conf_parameters(conf: str) -> dict[str, Any]:
    """The checked parameters of a configuration, by name."""
    bootstrap_project(PROJECT)
    with KedroSession.create(project_path=PROJECT, env=conf) as session:
        parameters: dict[str, Any] = session.load_context().params  # type: ignore[attr-defined]
    return parameters


def build(model: PublishedModel, folder: Path, pixels: int, parameters: dict[str, Any]) -> None:
    """Write the model with random weights in bf16, prompts, references, and a backbone of random weights."""
    teacher = TeacherFolder(path=write_configs(model, folder / "teacher"))
    _change(folder / "teacher/transformer/config.json", sample_size=pixels // 8)
    with seeded(0):
        for part in (teacher.transformer, teacher.autoencoder):
            save_model(_random(part.build()), part.path)
        cotraining = parameters["fractional_167"]["cotraining"]
        width = teacher.transformer.build().inner_dim
        save_model(
            Compensation(width, cotraining.candidates, **cotraining.compensation_function.model_dump()),
            folder / "compensation",
        )
        backbone = cotraining.backbone
        if isinstance(backbone, TimmParams):
            network = timm.create_model(backbone.name)
            save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "backbone.safetensors")
    _write_tables(teacher, folder, pixels)


def _random(model: nn.Module) -> nn.Module:
    """Weights of a network that keeps its inputs' size, in bf16; ones for the norms."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            made = torch.ones(parameter.shape, dtype=torch.bfloat16)
            if parameter.ndim > 1:
                made = torch.empty(parameter.shape, dtype=torch.bfloat16).normal_(0, parameter[0].numel() ** -0.5)
            elif name == "bias":
                made.zero_()
            module.register_parameter(name, nn.Parameter(made))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype))
    return model


def _write_tables(teacher: TeacherFolder, folder: Path, pixels: int) -> None:
    config = teacher.transformer.build().config
    index = pd.DataFrame({"id": [f"caption-{i}" for i in range(PROMPTS)], "text": "a caption"})
    index["split"] = ["train", "reference"] * (PROMPTS // 2)
    for name, rows in (("embeddings", index), ("empty", index[:1])):
        columns = {
            "prompt_embeds": torch.randn(len(rows), TOKENS, config.joint_attention_dim, dtype=torch.bfloat16),
            "pooled_prompt_embeds": torch.randn(len(rows), config.pooled_projection_dim, dtype=torch.bfloat16),
        }
        TensorTable.write(folder / name, rows, columns)
    references = pd.DataFrame({"prompt_row": range(PROMPTS), "noise_seed": range(PROMPTS)})
    images = torch.randint(256, (PROMPTS, 3, pixels, pixels), dtype=torch.uint8)
    TensorTable.write(folder / "references", references, {"image": images})


def _change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=2))


class Machine:
    """The most memory of what runs inside: resident pages, once where they are mapped twice, or what an accelerator has
    allocated.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak, self.done = device, 0, threading.Event()
        gc.collect()
        self.before = _resident()

    def __enter__(self) -> "Machine":
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Watch no longer."""
        self.done.set()
        self.thread.join()
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)

    def _watch(self) -> None:
        while not self.done.is_set():
            self.peak = max(self.peak, _resident() - self.before)
            time.sleep(PAUSE)


def _resident() -> int:
    """Bytes in memory; a file that two networks map counts once."""
    return int(psutil.Process().memory_full_info().pss)


def settings_of(params: Any, folder: Path, batch_size: int | None) -> Any:
    """A conf's parameters on this machine: the stored random backbone, and without CUDA an optimizer in float32."""
    changes: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size, "micro_batch_size": None}
    if isinstance(getattr(params, "backbone", None), TimmParams):
        weights = folder / "backbone.safetensors"
        changes["backbone"] = params.backbone.model_copy(update={"weights": weights})
    if not torch.cuda.is_available():
        for name, value in dict(params).items():
            if isinstance(value, OptimizerParams):
                changes[name] = value.model_copy(update={"kind": "adamw"})
    return params.model_copy(update=changes)


class Parts:
    """One part at a time, on the folder that ``build`` has written."""

    def __init__(self, folder: Path, conf: str, device: str, **compute: str) -> None:
        self.folder, self.tree = folder, conf_parameters(conf)
        self.teacher = TeacherFolder(path=folder / "teacher")
        self.compute: ComputeParams = self.tree["compute"].model_copy(update={"device": device, **compute})
        self.batch_size = None if device == "auto" else 1
        self.ranks = Ranks(self.compute)

    def run(self, part: str) -> dict[str, Any]:
        """Seconds, planned and measured memory of a part, and how many weights should have learned and did not."""
        return {"part": part, **getattr(self, part)()}

    def stage_one(self) -> dict[str, Any]:
        """One update of the fake score and of the student."""
        job = self.stage_one_job()
        need = stage_one_need(self.teacher, TOKENS, job.params, self.compute)
        with Machine(self.ranks.device) as machine:
            trainer = StageOneTrainer(job, Run(job.folder, {}, self.ranks))
            learning = [*trainer.student_stepper.named.items(), *trainer.fake_stepper.named.items()]
            return self._update(machine, need, lambda: trainer.update(0), learning)

    def stage_one_job(self) -> StageOneJob:
        """The student's stage one, which is not watched."""
        params = settings_of(self.tree["student"]["stage_one"], self.folder, self.batch_size)
        return StageOneJob(
            folder=self.folder / "run",
            compute=self.compute,
            teacher=self.teacher.transformer,
            autoencoder=self.teacher.autoencoder,
            shift=self.teacher.shift,
            embeddings=self._table("embeddings"),
            empty=self._table("empty"),
            validation=None,
            real_latents=None,
            trajectories=None,
            params=params.model_copy(update={"watch": params.watch.model_copy(update={"every": 10**6})}),
        )

    def stage_two(self) -> dict[str, Any]:
        """One update of the generator, with decoding."""
        params = settings_of(self.tree["student"]["stage_two"], self.folder, self.batch_size)
        need = stage_two_need(self.teacher, READER, TOKENS, params, self.compute)
        with Machine(self.ranks.device) as machine:
            trainer = AdversarialTrainer(AdversarialJob(params=params, **self._adversarial()), self.ranks)
            return self._generator_update(machine, need, trainer)

    def cotraining(self) -> dict[str, Any]:
        """One joint update of student and compensation on the cached path, with decoding."""
        params = settings_of(self.tree["fractional_167"]["cotraining"], self.folder, self.batch_size)
        params = params.model_copy(update={"compensation_warmup": 0})
        need = stage_two_need(self.teacher, READER, TOKENS, params, self.compute)
        with Machine(self.ranks.device) as machine:
            trainer = CotrainingTrainer(CotrainingJob(params=params, **self._adversarial()), self.ranks)
            return self._generator_update(machine, need, trainer)

    def sample(self) -> dict[str, Any]:
        """One image on the cached path, decoded."""
        job = self.sampling_job("run")
        need = sampling_need(self.teacher, TOKENS, 1, guided=False, decoded=True, compute=self.compute)
        with Machine(self.ranks.device) as machine:
            return self._update(machine, need, lambda: job.run(Run(job.folder, {}, self.ranks)), [])

    def sampling_job(self, name: str) -> SamplingJob:
        """One image on the cached path, decoded, in a run folder of this name."""
        params = self.tree["fractional_167"]["cotraining"]
        teacher, empty = self.teacher, self._table("empty")
        conditions = Conditions(teacher=teacher, embeddings=self._table("embeddings"), empty=empty)
        plan = pd.DataFrame({"prompt_row": [0], "noise_seed": [0]})
        method = MethodParams.unguided(name, params.num_inference_steps)
        job = latents_job(conditions, teacher.transformer, plan, method, 1, self.compute, self.folder / name)
        compensation = ModelFolder(path=self.folder / "compensation", class_name=COMPENSATION)
        cached = {"compensation": compensation, "bands": params.candidates[0]}
        return job.model_copy(update={"autoencoder": teacher.autoencoder, **cached})

    def _generator_update(self, machine: Machine, need: Need, trainer: AdversarialTrainer) -> dict[str, Any]:
        generates = next(s for s in range(10**6) if trainer.schedule.phase(s).name == "GENERATOR")
        learning = [*trainer.student_stepper.named.items()]
        if isinstance(trainer, CotrainingTrainer):
            learning += list(trainer.compensation.named_parameters())
        return self._update(machine, need, lambda: trainer.update(generates), learning, trainer.student_rests)

    def _update(
        self,
        machine: Machine,
        need: Need,
        update: Callable[[], Any],
        learning: Iterable[tuple[str, nn.Parameter]],
        rests: Callable[[str], bool] = lambda _name: False,
    ) -> dict[str, Any]:
        """One update, watched; ``learning`` are the weights that it should give a gradient, but for those that rest."""
        missing = {id(parameter): name for name, parameter in learning}

        def note(parameter: torch.Tensor) -> None:  # whatever a hook returns would stand for a gradient
            missing.pop(id(parameter), None)

        for _, parameter in learning:
            parameter.register_post_accumulate_grad_hook(note)
        began = time.perf_counter()
        update()
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        machine.stop()
        gib = 2**30
        return {
            "seconds": round(seconds, 2),
            "planned_gib": round(need.memory / gib, 2),
            "measured_gib": round(machine.peak / gib, 2),
            "gradients_missing": sum(not rests(name) for name in missing.values()),
        }

    def _adversarial(self) -> dict[str, Any]:
        transformer = self.teacher.transformer
        return {
            "folder": self.folder / "run",
            "compute": self.compute,
            "student": transformer,
            "autoencoder": self.teacher.autoencoder,
            "recogniser": READER,
            "reference_generator": transformer,
            "reference_steps": 4,
            "shift": self.teacher.shift,
            "embeddings": self._table("embeddings"),
            "references": self._table("references"),
        }

    def _table(self, name: str) -> TableFolder:
        return TableFolder(path=self.folder / name)


if __name__ == "__main__":
    part, folder, conf, device = sys.argv[1:]
    if device == "cpu":
        torch.set_num_threads(os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count() or 1)
    print(json.dumps(Parts(Path(folder), conf, device).run(part)))
