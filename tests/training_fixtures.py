"""Fixtures of the training tests: a tiny job of every kind, where it runs, and an interruption in the middle."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from onex_distill.cache.compensation import FunctionParams
from onex_distill.distill.cotraining.job import CotrainingJob
from onex_distill.distill.cotraining.params import CotrainingParams
from onex_distill.distill.stage_one.params import GuidanceParams, ImportanceParams, StageOneParams
from onex_distill.distill.stage_one.trainer import StageOneJob
from onex_distill.distill.stage_one.watching import WatchParams
from onex_distill.distill.stage_two.adversary import PenaltyParams
from onex_distill.distill.stage_two.backbones import RecogniserParams
from onex_distill.distill.stage_two.job import AdversarialJob
from onex_distill.distill.stage_two.params import AdversarialParams
from onex_distill.engine.compute import ComputeParams
from onex_distill.engine.job import Job
from onex_distill.engine.loop import LoopParams
from onex_distill.engine.optimisation import OptimizerParams
from onex_distill.engine.randomness import seeded
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.run import EVENTS, Run
from onex_distill.evaluation.jobs import SamplingJob
from onex_distill.models.embedding import EmbeddingJob
from onex_distill.models.lora import LoraParams
from onex_distill.models.teacher import TeacherFolder
from onex_distill.parameters import Params
from onex_distill.pretraining import training as pretraining
from onex_distill.pretraining.architecture import ArchitectureParams
from onex_distill.shapes.captions import all_captions
from onex_distill.shapes.networks import ShapesReader
from onex_distill.storage.frame import FrameFile, store_frame
from onex_distill.storage.model_folder import ModelFolder, save_model
from onex_distill.storage.tensor_table import TableFolder, TensorTable

Interrupt = Callable[[ModuleType, int], AbstractContextManager[None]]
Jobs = Callable[..., Job]
AnyParams = TypeVar("AnyParams", bound=pretraining.PretrainingParams)


class Interruption(Exception):
    """What stops a run."""


class Inputs(NamedTuple):
    """What jobs read, on disk."""

    teacher: TeacherFolder
    recogniser: ModelFolder
    text_components: ModelFolder
    embeddings: TableFolder
    empty: TableFolder
    references: TableFolder
    latents: TableFolder
    validation: TableFolder
    captions: FrameFile
    plan: FrameFile


@pytest.fixture(scope="session")
def optimizer() -> OptimizerParams:
    """AdamW whose first step already moves the weights, with a schedule that a resumed run has to continue."""
    return OptimizerParams(
        kind="adamw",
        lr=1e-2,
        betas=(0.5, 0.9),
        weight_decay=1e-4,
        eps=1e-8,
        clip_norm=1.0,
        warmup_steps=0,
        schedule="cosine",
    )


@pytest.fixture(scope="session")
def loop() -> LoopParams:
    """Four steps with a checkpoint in the middle."""
    return LoopParams(steps=4, checkpoint_every=2, log_every=2, max_nonfinite_steps=2)


@pytest.fixture(scope="session")
def compute() -> ComputeParams:
    """One process on the CPU."""
    return ComputeParams(
        processes=1,
        machines=1,
        rendezvous="localhost:29500",
        restarts=0,
        device="cpu",
        mixed_precision="fp32",
        sharding="none",
        cpu_offload=False,
        timeout=10.0,
        compile="none",
        attention="sdpa",
        decoding="whole",
    )


@pytest.fixture
def ranks(compute: ComputeParams) -> Ranks:
    """This process alone."""
    return Ranks(compute)


@pytest.fixture
def run(tmp_path: Path, ranks: Ranks) -> Run:
    """A run of this process alone, in a folder of its own."""
    return Run(tmp_path / "run", {"job": "mine"}, ranks)


@pytest.fixture(scope="session")
def stored_inputs(stored_teacher: Path, prompt_tables: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``inputs`` copies."""
    folder = tmp_path_factory.mktemp("stored") / "inputs"
    shutil.copytree(stored_teacher, folder / "teacher")
    shutil.copytree(prompt_tables.prompts.folder, folder / "embeddings")
    shutil.copytree(prompt_tables.empty.folder, folder / "empty")
    with seeded(4):
        save_model(ShapesReader(channels=(8, 8), feature_dim=8), folder / "recogniser")
    save_model(TeacherFolder(path=folder / "teacher").load_text_pipeline(), folder / "text_components")
    draws = torch.Generator().manual_seed(2)
    references = pd.DataFrame({"prompt_row": [3, 1, 0, 2, 1], "noise_seed": range(40, 45)})
    images = torch.randint(256, (5, 3, 32, 32), generator=draws, dtype=torch.uint8)
    TensorTable.write(folder / "references", references, {"image": images})
    texts = prompt_tables.prompts.index["text"].iloc[[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]]
    latents = pd.DataFrame({"text": texts.to_numpy()})
    TensorTable.write(folder / "latents", latents, {"latent": torch.randn(10, 4, 8, 8, generator=draws)})
    plan = pd.DataFrame({"prompt_row": [0, 1, 2, 3] * 4, "noise_seed": range(60, 76)})
    TensorTable.write(folder / "validation", plan, {"latent": torch.randn(16, 4, 8, 8, generator=draws)})
    store_frame(all_captions().iloc[:20].assign(split="train"), folder / "captions.parquet")
    store_frame(references, folder / "plan.parquet")
    return folder


@pytest.fixture
def inputs(stored_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """The tiny teacher, its tables and whatever else a job reads, for one test alone."""
    folder = Path(shutil.copytree(stored_inputs, tmp_path_factory.mktemp("inputs"), dirs_exist_ok=True))
    return Inputs(
        teacher=TeacherFolder(path=folder / "teacher"),
        recogniser=ModelFolder(path=folder / "recogniser", class_name="onex_distill.shapes.networks.ShapesReader"),
        text_components=ModelFolder(path=folder / "text_components", class_name="diffusers.StableDiffusion3Pipeline"),
        embeddings=TableFolder(path=folder / "embeddings"),
        empty=TableFolder(path=folder / "empty"),
        references=TableFolder(path=folder / "references"),
        latents=TableFolder(path=folder / "latents"),
        validation=TableFolder(path=folder / "validation"),
        captions=FrameFile(path=folder / "captions.parquet"),
        plan=FrameFile(path=folder / "plan.parquet"),
    )


@pytest.fixture(scope="session")
def stage_one_params(optimizer: OptimizerParams, loop: LoopParams) -> StageOneParams:
    """Two steps, half of the rows guided."""
    return StageOneParams(
        seed=5,
        num_inference_steps=2,
        batch_size=3,
        micro_batch_size=None,
        guidance=GuidanceParams(scale=4.0, alpha=0.9, axis="sigma"),
        importance=ImportanceParams(curve="c", axis="sigma", smoothing=100.0),
        sigma_range="step",
        matched="step_end",
        fake_updates=1,
        parametrization="full",
        lora=LoraParams(rank=2, alpha=2),
        gradient_checkpointing=False,
        regression=None,
        latent_gan=None,
        watch=WatchParams(every=2, prompts=2, images=2),
        select="last",
        student=optimizer,
        fake_score=optimizer,
        ema_decay=0.5,
        loop=loop,
    )


@pytest.fixture(scope="session")
def adversarial_params(optimizer: OptimizerParams, loop: LoopParams) -> AdversarialParams:
    """Discriminator and generator in turn."""
    return AdversarialParams(
        seed=6,
        num_inference_steps=2,
        batch_size=3,
        micro_batch_size=None,
        gradient_checkpointing=False,
        decoder_precision="fp32",
        lora=LoraParams(rank=2, alpha=2),
        student=optimizer,
        discriminator=optimizer,
        discriminator_hidden=4,
        discriminator_warmup=0,
        discriminator_updates=1,
        references="stored",
        backbone=RecogniserParams(kind="recogniser"),
        adversarial_loss="label_smoothed",
        label_smoothing=0.8,
        penalties=PenaltyParams(r1=0.0, r2=0.0, approximate_r1=0.0, noise_std=0.1),
        adversarial_weight=1.0,
        output_weight=0.0,
        feature_weight=0.0,
        perceptual_weight=0.0,
        loop=loop,
    )


@pytest.fixture(scope="session")
def cotraining_params(adversarial_params: AdversarialParams, optimizer: OptimizerParams) -> CotrainingParams:
    """The first generator update trains the compensation alone."""
    return CotrainingParams(
        **dict(adversarial_params) | {"output_weight": 0.5},
        candidates=(((1, 3),),),
        compensation_function=FunctionParams(kind="residual_mlp"),
        compensation=optimizer,
        compensation_warmup=1,
        fitting_steps=0,
        fitting_batch_size=3,
        fitting_batches=2,
    )


@pytest.fixture(scope="session")
def dial_params(cotraining_params: CotrainingParams) -> CotrainingParams:
    """Bands drawn at random, and every loss and penalty there is."""
    everything = {
        "candidates": (((1, 3),), ((2, 3),), ()),
        "adversarial_loss": "relativistic",
        "penalties": PenaltyParams(r1=0.1, r2=0.1, approximate_r1=0.1, noise_std=0.1),
        "feature_weight": 0.1,
        "perceptual_weight": 0.1,
    }
    return CotrainingParams(**dict(cotraining_params) | everything)


@pytest.fixture
def jobs(
    inputs: Inputs,
    compute: ComputeParams,
    architecture: ArchitectureParams,
    optimizer: OptimizerParams,
    loop: LoopParams,
    stage_one_params: StageOneParams,
    adversarial_params: AdversarialParams,
    cotraining_params: CotrainingParams,
    dial_params: CotrainingParams,
) -> Jobs:
    """``jobs(name, folder, **changes)`` is a tiny job of a kind; a change replaces the field of its name.

    It is looked for in the job, then in its compute settings, its parameters and the groups inside them.
    """

    def adversarial(kind: type[AdversarialJob], params: AdversarialParams, folder: Path) -> AdversarialJob:
        return kind(
            folder=folder,
            compute=compute,
            student=inputs.teacher.transformer,
            autoencoder=inputs.teacher.autoencoder,
            recogniser=inputs.recogniser,
            reference_generator=inputs.teacher.transformer,
            reference_steps=4,
            shift=3.0,
            embeddings=inputs.embeddings,
            references=inputs.references,
            params=params,
        )

    def pretrained(kind: type[AnyParams], **fields: Any) -> AnyParams:
        return kind(seed=3, batch_size=4, micro_batch_size=None, loop=loop, optimizer=optimizer, **fields)

    kinds: dict[str, Callable[[Path], Job]] = {
        "stage_one": lambda folder: StageOneJob(
            folder=folder,
            compute=compute,
            teacher=inputs.teacher.transformer,
            autoencoder=inputs.teacher.autoencoder,
            shift=3.0,
            embeddings=inputs.embeddings,
            empty=inputs.empty,
            validation=inputs.validation,
            real_latents=None,
            trajectories=None,
            params=stage_one_params,
        ),
        "stage_two": lambda folder: adversarial(AdversarialJob, adversarial_params, folder),
        "cotraining": lambda folder: adversarial(CotrainingJob, cotraining_params, folder),
        "dial": lambda folder: adversarial(CotrainingJob, dial_params, folder),
        "reader": lambda folder: pretraining.ReaderJob(
            folder=folder,
            compute=compute,
            params=pretrained(
                pretraining.ReaderParams,
                channels=(8, 8),
                feature_dim=8,
                pixel_noise=0.1,
            ),
        ),
        "autoencoder": lambda folder: pretraining.AutoencoderJob(
            folder=folder,
            compute=compute,
            architecture=architecture,
            params=pretrained(
                pretraining.AutoencoderParams,
                kl_weight=1e-6,
                edge_weight=0.5,
                bf16=False,
            ),
        ),
        "text_encoders": lambda folder: pretraining.TextEncodersJob(
            folder=folder,
            compute=compute,
            captions=inputs.captions,
            architecture=architecture,
            params=pretrained(pretraining.PretrainingParams),
        ),
        "transformer": lambda folder: pretraining.TransformerJob(
            folder=folder,
            compute=compute,
            latents=inputs.latents,
            text_components=inputs.text_components,
            architecture=architecture,
            params=pretrained(
                pretraining.FlowParams,
                caption_dropout=0.5,
                sigma_mean=0.0,
                sigma_std=1.0,
                sigma_shift=2.0,
                ema_decay=0.5,
            ),
        ),
        "embedding": lambda folder: EmbeddingJob(
            folder=folder,
            compute=compute,
            teacher=inputs.teacher,
            prompts=inputs.captions,
            max_sequence_length=architecture.max_tokens,
            dtype="fp32",
            batch_size=8,
        ),
        "sampling": lambda folder: SamplingJob(
            folder=folder,
            compute=compute,
            transformer=inputs.teacher.transformer,
            compensation=None,
            bands=(),
            autoencoder=None,
            embeddings=inputs.embeddings,
            empty=inputs.empty,
            plan=inputs.plan,
            shift=3.0,
            num_inference_steps=2,
            guidance_scale=1.0,
            alpha=1.0,
            batch_size=2,
        ),
    }

    def make(name: str, folder: Path, **changes: Any) -> Job:
        left = dict(changes)
        job: Job = _changed(kinds[name](folder), left)
        assert not left, f"nothing in the job {name} is called {sorted(left)}"
        return job

    return make


def _changed(model: Any, changes: dict[str, Any]) -> Any:
    """The model with the changes that name one of its fields, here or further in; they are taken from ``changes``."""
    fields = dict(model) | {name: changes.pop(name) for name in list(changes) if name in type(model).model_fields}
    for name in ("compute", "params", "loop", "guidance", "importance", "lora"):
        if changes and isinstance(fields.get(name), Params):
            fields[name] = _changed(fields[name], changes)
    return type(model)(**fields)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """``with interrupt(module, step):`` stops the training that ``module`` starts just before ``step``."""

    @contextmanager
    def interrupted(module: ModuleType, at: int) -> Iterator[None]:
        train = module.train

        def stopped(update: Callable[[int], dict[str, float]], *args: Any) -> pd.DataFrame:
            def limited(step: int) -> dict[str, float]:
                if step == at:
                    raise Interruption
                return update(step)

            return train(limited, *args)

        monkeypatch.setattr(module, "train", stopped)
        with pytest.raises(Interruption):
            yield
        monkeypatch.setattr(module, "train", train)

    return interrupted


@pytest.fixture
def recorded() -> Callable[[Path], EventAccumulator]:
    """What TensorBoard shows of a run folder."""

    def read(folder: Path) -> EventAccumulator:
        return EventAccumulator(str(folder / EVENTS), size_guidance={"scalars": 0, "images": 0}).Reload()

    return read


@pytest.fixture
def assert_same_run() -> Callable[[tuple[nn.Module, pd.DataFrame], tuple[nn.Module, pd.DataFrame]], None]:
    """Check that two runs ended with the same weights and the same losses, bit for bit."""

    def check(first: tuple[nn.Module, pd.DataFrame], second: tuple[nn.Module, pd.DataFrame]) -> None:
        pd.testing.assert_frame_equal(first[1], second[1], check_exact=True)
        states = first[0].state_dict(), second[0].state_dict()
        assert states[0].keys() == states[1].keys()
        different = [name for name, tensor in states[0].items() if not torch.equal(tensor, states[1][name])]
        assert not different

    return check


@pytest.fixture
def assert_same_result() -> Callable[[Path, Path], None]:
    """Check that two jobs made the same weights, tables and losses, bit for bit; measured seconds aside."""

    def check(first: Path, second: Path) -> None:
        names = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
        assert names == {path.relative_to(second) for path in second.rglob("*") if path.is_file()}
        for name in names:
            if name.suffix == ".parquet":
                frames = pd.read_parquet(first / name), pd.read_parquet(second / name)
                pd.testing.assert_frame_equal(*frames, check_exact=True)
            if name.suffix == ".safetensors":
                ours, theirs = load_file(first / name), load_file(second / name)
                assert ours.keys() == theirs.keys()
                kept = [key for key in ours if not key.startswith("seconds")]
                assert not [key for key in kept if not torch.equal(ours[key], theirs[key])]

    return check
