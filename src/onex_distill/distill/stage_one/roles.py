"""The networks of stage one: three copies of the transformer, or one frozen backbone with two sets of adapters."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import SD3Transformer2DModel
from peft import PeftModel
from torch import Tensor, nn

from onex_distill.distill.stage_one.params import StageOneParams
from onex_distill.engine.checkpoint import Stateful
from onex_distill.engine.optimisation import moving_average
from onex_distill.engine.randomness import seeded
from onex_distill.engine.ranks import Ranks
from onex_distill.engine.weights import frozen_dtype, gather, load_transformer, place, reshard, save_transformer
from onex_distill.models.lora import (
    AdapterState,
    activate,
    adapter_parameters,
    add_lora,
    add_second_lora,
    merge_lora,
    named_adapter_parameters,
)
from onex_distill.models.prompts import PromptBatch
from onex_distill.models.velocity import Network
from onex_distill.storage.model_folder import ModelFolder, save_model

STUDENT, FAKE_SCORE = "student", "fake_score"


@dataclass
class Roles:
    """What is called in each role, and the empty prompt that guidance subtracts."""

    teacher: Network
    student: Network
    fake_score: Network
    empty: PromptBatch


class Networks(Protocol):
    """Where the roles' weights live."""

    def roles(self, empty: PromptBatch) -> Roles:
        """The networks to call."""

    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        """The trained weights of the student or of the fake score, by name."""

    def parameters(self, role: str) -> list[nn.Parameter]:
        """The same weights in the same order."""

    def before_backward(self, role: str) -> None:
        """Make the network one role's again: gradient checkpointing runs its forward a second time."""

    def update_average(self) -> None:
        """Follow the student's weights, after each of its updates."""

    def averaged(self) -> AbstractContextManager[Network]:
        """The student as ``save_student`` writes it, to be sampled inside the block and not trained."""

    def states(self) -> Mapping[str, Stateful]:
        """What a checkpoint has to hold."""

    def save_student(self, folder: Path) -> None:
        """Write the averaged student as a plain transformer. Every rank calls this; rank 0 writes."""


def build_networks(teacher: ModelFolder, params: StageOneParams, ranks: Ranks) -> Networks:
    """The networks of ``params.parametrization``, on their devices, all with the teacher's weights."""
    return (FullCopies if params.parametrization == "full" else SharedBackbone)(teacher, params, ranks)


class FullCopies:
    """Three transformers, and a fourth for the student's average if there is one."""

    def __init__(self, teacher: ModelFolder, params: StageOneParams, ranks: Ranks) -> None:
        self.folder, self.ranks = teacher, ranks
        frozen, student, fake_score = (load_transformer(teacher) for _ in range(3))
        self.average = moving_average(load_transformer(teacher), params.ema_decay) if params.ema_decay else None
        if self.average is not None:
            place(self.average.module, ranks)
        self.teacher = place(frozen, ranks).requires_grad_(False).eval()
        self.trained = {
            STUDENT: place(student, ranks).requires_grad_(True).train(),
            FAKE_SCORE: place(fake_score, ranks).requires_grad_(True).train(),
        }
        for network in self.trained.values():
            if params.gradient_checkpointing:
                network.enable_gradient_checkpointing()

    def roles(self, empty: PromptBatch) -> Roles:
        """See ``Networks``."""
        return Roles(self.teacher, self.trained[STUDENT], self.trained[FAKE_SCORE], empty)

    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        """See ``Networks``."""
        return dict(self.trained[role].named_parameters())

    def parameters(self, role: str) -> list[nn.Parameter]:
        """See ``Networks``."""
        return list(self.trained[role].parameters())

    def before_backward(self, role: str) -> None:
        """Nothing: every role has a network of its own."""

    def update_average(self) -> None:
        """See ``Networks``."""
        if self.average is not None:
            self.average.update_parameters(self.trained[STUDENT])

    @contextmanager
    def averaged(self) -> Iterator[Network]:
        """See ``Networks``."""
        yield self._saved()
        reshard(self._saved())

    def states(self) -> Mapping[str, Stateful]:
        """See ``Networks``."""
        return dict(self.trained) if self.average is None else {**self.trained, "average": self.average}

    def save_student(self, folder: Path) -> None:
        """See ``Networks``."""
        state = gather(self._saved().state_dict(), self.ranks)
        if self.ranks.is_first:
            save_transformer(state, self.folder, folder)

    def _saved(self) -> SD3Transformer2DModel:
        return self.trained[STUDENT] if self.average is None else self.average.module


class SharedBackbone:
    """One frozen transformer: as it is the teacher, with one set of adapters the student, with another the fake score.

    The average is of the student's adapters. Under bf16 autocast the backbone is stored in bf16, to which autocast
    would cast it in every forward; adapters are float32.
    """

    def __init__(self, teacher: ModelFolder, params: StageOneParams, ranks: Ranks) -> None:
        self.folder, self.ranks, self.lora = teacher, ranks, params.lora
        transformer: SD3Transformer2DModel = load_transformer(teacher)
        with seeded(params.seed):
            self.model: PeftModel = add_lora(transformer, params.lora, STUDENT)
            add_second_lora(self.model, params.lora, FAKE_SCORE)
        activate(self.model, STUDENT)
        place(transformer, ranks, frozen_dtype(ranks)).train()
        if params.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        self.average = moving_average(nn.ParameterList(self.parameters(STUDENT)), params.ema_decay)

    def roles(self, empty: PromptBatch) -> Roles:
        """See ``Networks``."""
        return Roles(self._role(None), self._role(STUDENT), self._role(FAKE_SCORE), empty)

    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        """See ``Networks``."""
        return named_adapter_parameters(self.model, role)

    def parameters(self, role: str) -> list[nn.Parameter]:
        """See ``Networks``."""
        return adapter_parameters(self.model, role)

    def before_backward(self, role: str) -> None:
        """See ``Networks``."""
        activate(self.model, role)

    def update_average(self) -> None:
        """See ``Networks``."""
        self.average.update_parameters(nn.ParameterList(self.parameters(STUDENT)))

    @contextmanager
    def averaged(self) -> Iterator[Network]:
        """See ``Networks``."""
        student = self.parameters(STUDENT)
        trained = [parameter.detach().clone() for parameter in student]
        _copy(self.average.module.parameters(), student)
        yield self._role(STUDENT)
        _copy(trained, student)

    def states(self) -> Mapping[str, Stateful]:
        """See ``Networks``."""
        adapters = {role: AdapterState(self.model, role) for role in (STUDENT, FAKE_SCORE)}
        return {**adapters, "average": self.average}

    def save_student(self, folder: Path) -> None:
        """See ``Networks``."""
        names = AdapterState(self.model, STUDENT).state_dict()
        averaged: dict[str, Tensor] = dict(zip(names, self.average.module.parameters(), strict=True))
        state = gather({name: tensor.detach() for name, tensor in averaged.items()}, self.ranks)
        if self.ranks.is_first:
            adapted = add_lora(load_transformer(self.folder).float(), self.lora)
            AdapterState(adapted).load_state_dict(state)
            save_model(merge_lora(adapted), folder)

    def _role(self, adapters: str | None) -> Network:
        def forward(**inputs: Any) -> Any:
            activate(self.model, adapters)
            return self.model.get_base_model()(**inputs)

        return forward


@torch.no_grad()
def _copy(sources: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
