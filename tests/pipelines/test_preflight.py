"""Every bad input of a list ends the run in one line before its first node."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from diffusers import SD3Transformer2DModel
from kedro.framework.hooks import hook_impl
from kedro.framework.hooks.manager import _NullPluginManager
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io.core import DatasetError
from kedro.pipeline.node import Node
from kedro.validation.exceptions import ParameterValidationError
from safetensors.torch import load_file, save_file

from onex_distill.cli import readable
from support import PROJECT

Change = Callable[[Path], None]


class Recorder:
    """A hook that remembers which nodes were started."""

    def __init__(self) -> None:
        self.started: list[str] = []

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        self.started.append(node.name)
        raise AssertionError(f"{node.name} was started")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A copy of the committed inputs."""
    return Path(shutil.copytree(PROJECT / "data/01_raw", tmp_path / "raw"))


@pytest.fixture
def refusal(tmp_path: Path, raw: Path) -> Callable[..., str]:
    """Start a pipeline on the copied inputs; its one line of refusal, when no node has run."""
    bootstrap_project(PROJECT)

    def start(params: dict[str, Any] | None = None, pipeline: str = "distill", **filters: Any) -> str:
        recorder, data = Recorder(), tmp_path / "data"
        runtime = {"data": str(data), "raw": str(raw), **(params or {})}
        with KedroSession.create(project_path=PROJECT, env="test", runtime_params=runtime) as session:
            assert not isinstance(session._hook_manager, _NullPluginManager)
            session._hook_manager.register(recorder)
            with pytest.raises((ValueError, DatasetError, ParameterValidationError)) as error:
                session.run(pipeline_names=[pipeline], **filters)
        assert recorder.started == []
        assert not [path for path in data.rglob("*") if path.is_file()]
        message = readable(error.value)
        assert len(message.splitlines()) == 1
        return message

    return start


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file; a value of None is null, ``...`` removes the key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def change_config(name: str, **changes: Any) -> Change:
    return lambda raw: edit(raw / "teacher" / name, **changes)


def change_weights(name: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    def apply(raw: Path) -> None:
        path = raw / "teacher" / name
        save_file(change(load_file(path)), path)

    return apply


def replace(name: str, content: bytes) -> Change:
    def apply(raw: Path) -> None:
        (raw / name).write_bytes(content)

    return apply


def remove(name: str) -> Change:
    def apply(raw: Path) -> None:
        path = raw / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return apply


def lose_a_shard(raw: Path) -> None:
    folder = raw / "teacher/transformer"
    model = SD3Transformer2DModel.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="4MB")
    next(iter(sorted(folder.glob("*-00002-of-*")))).unlink()


def pickled(raw: Path) -> None:
    folder = raw / "teacher/vae"
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()


WEIGHTS = "diffusion_pytorch_model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
SCHEDULER = "scheduler/scheduler_config.json"
LORA = {"transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(4, 96)}

FOLDERS = {
    "missing evaluator": (remove("evaluator"), "the input evaluator is missing: .*evaluator does not exist"),
    "evaluator without weights": (remove(f"evaluator/{WEIGHTS}"), "evaluator holds no weights"),
    "missing captions": (remove("shapes_captions.parquet"), "the input captions is missing .* does not exist"),
    "captions in UTF-16": (replace("shapes_captions.parquet", "text".encode("utf-16")), "cannot be read as .parquet"),
    "lost shard": (lose_a_shard, r"lacks the shard diffusion_pytorch_model-00002-of-0000.\.safetensors that"),
    "LoRA keys": (change_weights(f"transformer/{WEIGHTS}", lambda w: w | LORA), r"holds LoRA weights \(.*lora_A"),
    "LoRA alone": (change_weights(f"transformer/{WEIGHTS}", lambda w: LORA), "holds LoRA weights"),
    "Git-LFS pointer": (replace(f"teacher/vae/{WEIGHTS}", POINTER), "is a Git-LFS pointer, not the weights"),
    "Git-LFS pointer of a text encoder": (
        replace("teacher/text_encoder_3/model.safetensors", POINTER),
        "is a Git-LFS pointer, not the weights",
    ),
    "cut short": (
        lambda raw: replace(f"teacher/vae/{WEIGHTS}", (raw / f"teacher/vae/{WEIGHTS}").read_bytes()[:-9])(raw),
        "bytes and should have .*; copy it again",
    ),
    "pickled weights": (pickled, "a pickle, which can run code and is not read"),
    "quantised config": (
        change_config("transformer/config.json", quantization_config={"quant_method": "bitsandbytes"}),
        "is that of a quantised model",
    ),
    "quantised text encoder": (
        change_config("text_encoder_3/config.json", quantization_config={"quant_method": "quanto"}),
        "is that of a quantised model",
    ),
    "quantised weights": (
        change_weights(f"vae/{WEIGHTS}", lambda w: {k: v.to(torch.float8_e4m3fn) for k, v in w.items()}),
        "is quantised .* F8_E4M3",
    ),
    "foreign config key": (change_config("transformer/config.json", num_layer=3), "did you mean 'num_layers'"),
    "shift_factor null": (change_config("vae/config.json", shift_factor=None), "has no number shift_factor"),
    "no shift": (change_config(SCHEDULER, shift=...), "has no number shift"),
    "dynamic shifting": (change_config(SCHEDULER, use_dynamic_shifting=True), "sets use_dynamic_shifting to True"),
    "Karras sigmas": (change_config(SCHEDULER, use_karras_sigmas=True), "sets use_karras_sigmas to True"),
    "exponential sigmas": (change_config(SCHEDULER, use_exponential_sigmas=True), "sets use_exponential_sigmas"),
    "beta sigmas": (change_config(SCHEDULER, use_beta_sigmas=True), "sets use_beta_sigmas to True"),
    "another scheduler": (change_config(SCHEDULER, _class_name="DDIMScheduler"), "is a DDIMScheduler, not a FlowMatch"),
    "another scheduler in the index": (
        change_config("model_index.json", scheduler=["diffusers", "DDIMScheduler"]),
        "names diffusers.DDIMScheduler as 'scheduler'",
    ),
    "tokenizer without a maximum length": (
        change_config("tokenizer/tokenizer_config.json", model_max_length=...),
        "has no number model_max_length",
    ),
    "tokenizer of any length": (
        change_config("tokenizer_2/tokenizer_config.json", model_max_length=10**30),
        "has model_max_length 1000000.* and text_encoder_2 has 10 positions",
    ),
    "tokenizer without its file": (
        remove("teacher/tokenizer_3/tokenizer.json"),
        "tokenizer_3 has neither tokenizer.json nor spiece.model",
    ),
    "weights of another shape": (
        change_config("transformer/config.json", num_attention_heads=2),
        "does not hold the weights of its config.json",
    ),
    "more layers than weights": (change_config("text_encoder/config.json", num_hidden_layers=3), "lacks 1. weights"),
}

PARAMETERS = {
    "max_sequence_length": ({"text": {"max_sequence_length": 600}}, "max_sequence_length .*less than or equal to 512"),
    "too few validation images": (
        {"validation_set": {"captions": 2, "images_per_caption": 1}},
        "2 validation images are too few for latents of 8 channels",
    ),
    "too few evaluation images": ({"evaluation_set": {"captions": 1, "images_per_caption": 2}}, "2 evaluation images"),
    "no diversity": ({"evaluation_set": {"images_per_caption": 1}}, "leaves no diversity to measure"),
    "band": ({"fractional_167": {"cotraining": {"candidates": [[[3, 20]]]}}}, "inside blocks 1 to 10 of 12"),
    "backbone": (
        {
            "student": {
                "stage_two": {
                    "backbone": {
                        "kind": "timm",
                        "name": "resnet18.a1_in1k",
                        "weights": "gone.safetensors",
                        "size": None,
                        "levels": [2, 3],
                    }
                }
            }
        },
        "weights gone.safetensors of the backbone 'resnet18.a1_in1k' are no .safetensors file",
    ),
    "micro-batch": (
        {"student": {"stage_one": {"micro_batch_size": 3}}},
        "student.stage_one: micro_batch_size 3 on 1 ranks does not divide batch_size 4",
    ),
    "8-bit optimizer of shards": (
        {
            "student": {"stage_one": {"student": {"kind": "adamw_8bit"}}},
            "compute": {"processes": 2, "sharding": "fsdp2"},
        },
        "adamw_8bit cannot step weights that compute.sharding fsdp2 splits over ranks",
    ),
    "batch": ({"compute": {"processes": 8}}, "batch_size 4 cannot be split over 8 ranks"),
    "row of a network": (
        {"metrics": {"kid": {"features": "shapes.featurez"}}},
        "metrics.kid.features names an unknown row of shapes 'featurez'; did you mean 'features'",
    ),
    "student of the report": (
        {"report": {"student": "stage_two_3"}},
        "report.student names an unknown row .* did you mean .stage_two_2",
    ),
    "row of another pipeline": ({"report": {"student": "dmd_2"}}, "report.student names an unknown row 'dmd_2'"),
    "budget in the name of a row": (
        {"report": {"student": "fractional_1.76"}},
        "report.student names an unknown row 'fractional_1.76'",
    ),
    "noise of the null row": ({"evaluation": {"null_seed": -1}}, "null_seed.*greater than or equal to 0"),
    "draws of the intervals": ({"confidence": {"seed": 2**63}}, "parameter .confidence.: seed .*less than"),
    "published rows": ({"report": {"published": "sdxl"}}, "report.published 'sdxl' has no published rows"),
    "budget of a row": (
        {"methods": {"fractional_167": {"nfe": 1.2}}},
        "nfe 1.2 cannot be met: the trained bands reach 1.67 to 2.00",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_bad_folder_ends_the_run_before_its_first_node(refusal, raw, name):
    change, message = FOLDERS[name]
    change(raw)
    assert_says(refusal(), message)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_bad_setting_ends_the_run_before_its_first_node(refusal, name):
    params, message = PARAMETERS[name]
    assert_says(refusal(params), message)


def test_what_environments_share_is_none_to_run():
    bootstrap_project(PROJECT)
    with (
        KedroSession.create(project_path=PROJECT, env="sd3") as session,
        pytest.raises(ValueError, match="conf/sd3 is for other environments to extend, and none to run"),
    ):
        session.load_context()


def test_a_selection_of_nodes_is_checked_for_what_it_reads_alone(refusal, raw):
    shutil.rmtree(raw / "teacher/text_encoder_3")
    message = refusal(node_names=["embed_prompts"])
    assert "prompts, resource_plan are not there yet" in message
    assert "run `kedro run --pipelines=distill` first" in message


def test_a_pipeline_that_needs_another_one_first_names_it(refusal):
    assert "run `kedro run --pipelines=distill` first" in refusal(pipeline="generate")


def test_captions_without_a_heldout_split_are_refused(refusal, raw):
    captions = pd.read_parquet(raw / "shapes_captions.parquet").query("split != 'heldout'")
    captions.to_parquet(raw / "shapes_captions.parquet")
    assert "no caption is in the split 'heldout'" in refusal()


def assert_says(message: str, pattern: str) -> None:
    assert re.search(pattern, message), message


@pytest.fixture
def warnings(tmp_path: Path, raw: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., str]:
    """Start the main job on the copied inputs, up to its first node; what it warned of."""
    bootstrap_project(PROJECT)

    def start(**params: Any) -> str:
        runtime = {"data": str(tmp_path / "data"), "raw": str(raw), **params}
        with KedroSession.create(project_path=PROJECT, env="test", runtime_params=runtime) as session:
            session._hook_manager.register(Recorder())
            with caplog.at_level("WARNING"), pytest.raises(AssertionError, match="was started"):
                session.run(pipeline_names=["distill"])
        return caplog.text

    return start


def test_captions_that_a_metric_cannot_read_are_said_before_anything_is_trained(warnings, raw):
    texts = [f"a photograph of cat number {number}" for number in range(100)]
    pd.DataFrame({"text": texts}).to_parquet(raw / "shapes_captions.parquet")
    said = warnings()
    assert "alignment and entropy stay empty" in said
    assert "of 9 captions do not, such as 'a photograph of cat number" in said


ABSENT = {"hub": "huggingface", "location": "facebook/dinov2-large", "revision": "47b7", "files": [{"name": "x.st"}]}
SCORERS = [
    {"kind": "shapes", "name": "shapes", "location": "data/01_raw/evaluator"},
    {"kind": "pixels", "name": "pixels"},
    {"kind": "dinov2", "name": "dino", "weights": ABSENT},
]


def test_scorers_that_are_not_there_are_said_before_anything_is_trained(warnings, tmp_path):
    scorers = {"networks": SCORERS, "folder": str(tmp_path / "scorers")}
    said = warnings(scorers=scorers, metrics={"dinov2_distance": {"features": "dino.image"}})
    assert "the scorer dino gives no features; dinov2_distance will be empty: " in said
    assert "x.st is missing; `kedro run --pipelines=fetch_scorers` downloads it from facebook/dinov2-large" in said
    assert "the scorer shapes" not in said
    assert "the scorer pixels" not in said


def test_the_scorers_of_the_test_world_are_there(warnings):
    assert "the scorer" not in warnings()


def test_a_metric_of_no_scorer_is_refused(refusal):
    message = refusal({"metrics": {"fid": {"features": "shaps.features"}}})
    assert message == "metrics.fid.features names an unknown network 'shaps'; did you mean 'shapes'?"


SCORE = {
    "nothing": ({}, "nothing to score; name folders with"),
    "no folder": ({"images": "gone"}, "gone is no folder; correct score.images"),
    "reference": ({"images": "data/01_raw", "reference": "02_raw"}, "score.reference is an unknown row '02_raw'"),
    "pipeline": (
        {"pipelines": [{"source": "data/01_raw/evaluator"}], "captions": "c.txt"},
        "data/01_raw/evaluator cannot be opened as a diffusers pipeline: ",
    ),
    "hub": (
        {"pipelines": [{"source": "nobody/nothing"}], "captions": "c.txt"},
        "nobody/nothing cannot be opened as a diffusers pipeline: ",
    ),
    "scheduler": (
        {"pipelines": [{"source": "data/01_raw/teacher", "scheduler": "Eulr"}], "captions": "c.txt"},
        "diffusers has no scheduler 'Eulr'",
    ),
    "captions": ({"pipelines": [{"source": "data/01_raw/teacher"}], "captions": "c.txt"}, "c.txt does not exist"),
    "seed": ({"seed": -1}, "score.seed|greater than or equal to 0"),
}


@pytest.mark.parametrize("name", SCORE)
def test_what_cannot_be_scored_ends_the_run_before_its_first_node(refusal, name):
    score, message = SCORE[name]
    whole = {"name": "one", "steps": None, "guidance_scale": None, "scheduler": None}
    pipelines = [whole | one for one in score.get("pipelines", [])]
    assert_says(refusal({"score": score | {"pipelines": pipelines}}, pipeline="score"), message)
