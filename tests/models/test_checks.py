import json
import shutil

import pytest

from onex_distill.models.checks import REQUIRED, check_teacher, check_teacher_folder
from onex_distill.models.tiny import build_transformer


def test_a_complete_teacher_passes(tiny_teacher, tiny_teacher_folder):
    check_teacher_folder(tiny_teacher_folder)
    check_teacher(tiny_teacher)


def test_a_teacher_without_t5_passes(tiny_teacher, tmp_path):
    tiny_teacher.register_modules(text_encoder_3=None, tokenizer_3=None)
    tiny_teacher.save_pretrained(tmp_path / "small")
    check_teacher_folder(tmp_path / "small")
    check_teacher(tiny_teacher)


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
def test_widths_that_disagree_are_named(tiny_teacher, architecture, change, message):
    tiny_teacher.register_modules(transformer=build_transformer(architecture.model_copy(update=change)))
    with pytest.raises(ValueError, match=message) as error:
        check_teacher(tiny_teacher)
    assert one_line(error)
