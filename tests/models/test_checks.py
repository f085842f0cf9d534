import json
import shutil

import pytest

from onex_distill.models.checks import REQUIRED, check_teacher_folder
from onex_distill.pretraining.architecture import build_transformer


def test_a_complete_teacher_passes(stored_teacher):
    check_teacher_folder(stored_teacher)


def test_a_teacher_without_t5_passes(tiny_teacher, tmp_path):
    tiny_teacher.register_modules(text_encoder_3=None, tokenizer_3=None)
    tiny_teacher.save_pretrained(tmp_path / "small")
    check_teacher_folder(tmp_path / "small")


def one_line(error: pytest.ExceptionInfo[ValueError]) -> bool:
    return "\n" not in str(error.value)


@pytest.mark.parametrize("name", [*REQUIRED, "text_encoder_3", "tokenizer_3"])
def test_a_missing_component_is_named(tiny_teacher_folder, name):
    shutil.rmtree(tiny_teacher_folder / name)
    with pytest.raises(ValueError, match=f"lacks the component '{name}'") as error:
        check_teacher_folder(tiny_teacher_folder)
    assert one_line(error)


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no model_index\.json") as error:
        check_teacher_folder(tmp_path)
    assert one_line(error)


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no diffusers pipeline"):
        check_teacher_folder(tmp_path / "nowhere")


def test_another_pipeline_class_is_refused(tiny_teacher_folder):
    path = tiny_teacher_folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "FluxPipeline"}))
    with pytest.raises(ValueError, match="FluxPipeline, not a StableDiffusion3Pipeline") as error:
        check_teacher_folder(tiny_teacher_folder)
    assert one_line(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_dim": 16}, "pooled text width is 16 but transformer.pooled_projection_dim is 32"),
        ({"latent_channels": 8}, "vae.latent_channels is 4 but transformer.in_channels is 8"),
        ({"t5_dim": 32}, "T5 width is 16 but transformer.joint_attention_dim is 32"),
    ],
)
def test_widths_that_disagree_are_named(tiny_teacher_folder, architecture, change, message):
    build_transformer(architecture.model_copy(update=change)).save_pretrained(tiny_teacher_folder / "transformer")
    with pytest.raises(ValueError, match=message) as error:
        check_teacher_folder(tiny_teacher_folder)
    assert one_line(error)


def test_another_kind_of_transformer_is_refused(tiny_teacher_folder):
    path = tiny_teacher_folder / "transformer/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(ValueError, match="holds a FluxTransformer2DModel, not an SD3Transformer2DModel") as error:
        check_teacher_folder(tiny_teacher_folder)
    assert one_line(error)


CONFIGS = ["model_index.json", *(f"{name}/config.json" for name in ("transformer", "vae", "text_encoder_2"))]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_damaged_config_is_reported_in_one_line(tiny_teacher_folder, name, content):
    (tiny_teacher_folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is missing or damaged .*; copy the whole") as error:
        check_teacher_folder(tiny_teacher_folder)
    assert one_line(error)


@pytest.mark.parametrize("name", ["vae/config.json", "text_encoder_2/config.json"])
@pytest.mark.parametrize("content", ["{}", "[]"])
def test_a_config_without_the_field_is_reported_in_one_line(tiny_teacher_folder, name, content):
    (tiny_teacher_folder / name).write_text(content)
    with pytest.raises(ValueError, match=name) as error:
        check_teacher_folder(tiny_teacher_folder)
    assert one_line(error)


@pytest.mark.parametrize("name", CONFIGS[1:])
def test_a_config_that_is_not_there_is_named(tiny_teacher_folder, name):
    (tiny_teacher_folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} does not exist; copy the whole folder again") as error:
        check_teacher_folder(tiny_teacher_folder)
    assert one_line(error)
