import json

import pytest
import torch

from onex_distill.models.teacher import TeacherFolder
from onex_distill.models.text import encode_prompts
from support import in_aligned_memory


@pytest.fixture
def teacher(stored_teacher) -> TeacherFolder:
    return TeacherFolder(path=stored_teacher)


def test_a_checked_teacher_is_itself(teacher):
    assert teacher.check() == teacher


def test_what_configs_say_is_known_without_weights(tiny_teacher_folder, architecture):
    for path in tiny_teacher_folder.rglob("*.safetensors"):
        path.unlink()
    teacher = TeacherFolder(path=tiny_teacher_folder)
    assert teacher.shift == architecture.shift
    assert teacher.num_layers == architecture.num_layers
    assert teacher.clip_tokens == architecture.max_tokens


def test_the_bytes_of_embeddings_are_those_of_the_encoders(teacher, architecture):
    embeds, pooled = encode_prompts(teacher.load_text_pipeline(), ["a red circle"], 5)
    assert embeds.shape[1] == architecture.max_tokens + 5
    assert teacher.embedding_bytes(5) == embeds.nbytes + pooled.nbytes


def test_components_are_loaded_alone(teacher, tiny_teacher):
    for folder, expected in ((teacher.transformer, tiny_teacher.transformer), (teacher.autoencoder, tiny_teacher.vae)):
        loaded = folder.load()
        assert type(loaded) is type(expected)
        assert all(
            torch.equal(ours, theirs) for ours, theirs in zip(loaded.parameters(), expected.parameters(), strict=True)
        )


def test_the_text_pipeline_reads_neither_transformer_nor_autoencoder(tiny_teacher_folder, tiny_teacher):
    for name in ("transformer", "vae"):
        (tiny_teacher_folder / name / "diffusion_pytorch_model.safetensors").unlink()
    (tiny_teacher_folder / "checksums.json").unlink()
    text = in_aligned_memory(TeacherFolder(path=tiny_teacher_folder).load_text_pipeline())
    assert text.transformer is None
    assert text.vae is None
    ours, theirs = (encode_prompts(pipeline, ["a red circle"], 6) for pipeline in (text, tiny_teacher))
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_tokenizers_are_read_without_any_weights(tiny_teacher_folder):
    for path in tiny_teacher_folder.rglob("*.safetensors"):
        path.unlink()
    (tiny_teacher_folder / "checksums.json").unlink()
    pipeline = TeacherFolder(path=tiny_teacher_folder).load_tokenizers()
    assert pipeline.text_encoder is None
    assert len(pipeline.tokenizer("a red circle").input_ids) == 5


def test_the_whole_pipeline_samples(teacher):
    pipeline = teacher.load()
    image = pipeline("a red circle", num_inference_steps=1, height=32, width=32, max_sequence_length=6).images[0]
    assert image.size == (32, 32)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("transformer", {"qk_norm": None}, r"does not hold the weights of its config.json .*; copy the whole folder"),
        ("transformer", {"num_layers": 9}, "transformer cannot be loaded as diffusers.SD3Transformer2DModel"),
        ("vae", {"layers_per_block": 2}, r"does not hold the weights of its config.json .*; copy the whole folder"),
    ],
)
def test_weights_of_another_architecture_are_refused_in_one_line(tiny_teacher_folder, part, change, message):
    path = tiny_teacher_folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message) as error:
        TeacherFolder(path=tiny_teacher_folder).load()
    assert "\n" not in str(error.value)
