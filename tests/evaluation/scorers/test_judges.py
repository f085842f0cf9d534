"""The judges of DPG-Bench and of GenEval-style."""

import json

import pandas as pd
import pytest
import torch
from torchvision.transforms import v2
from transformers import (
    BlipConfig,
    BlipForQuestionAnswering,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

from onex_distill.evaluation.features import ScorersParams, extract_features
from onex_distill.evaluation.measures import measure
from onex_distill.evaluation.scored import ConfidenceParams, MetricParams, Scored
from onex_distill.evaluation.scorers.base import load_network
from onex_distill.evaluation.scorers.clip import MEAN, STD, ClipParams
from onex_distill.evaluation.scorers.detector import COLOURS, DetectorParams, detections
from onex_distill.evaluation.scorers.vqa import VqaParams
from onex_distill.metrics.geneval import Detection
from onex_distill.storage.image_table import ImageWriter
from photographs import photographs
from tiny_scorers import clip_config, local, seeded, write_architecture, write_clip

CPU = torch.device("cpu")
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "yes",
    "no",
    "is",
    "there",
    "a",
    "cat",
    "dog",
    "?",
    "the",
    "black",
    "[DEC]",
]
HEADER = "item_id,text,proposition_id,dependency,category_broad,question_natural_language"
ROWS = ("a,a black cat,1,0,entity,is there a cat?", "a,a black cat,2,1,attribute,is the cat black?")


@pytest.fixture
def described(tmp_path):
    """The model of a judge and its configuration."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {
        **sizes,
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 32,
        "bos_token_id": 15,
        "max_position_embeddings": 64,
    }
    vision = {**sizes, "image_size": 384, "patch_size": 96}
    config = BlipConfig(text_config={**text, "is_decoder": True, "max_position_embeddings": 64}, vision_config=vision)
    model = seeded(BlipForQuestionAnswering(config), 0)
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "dpg.csv").write_text("\n".join([HEADER, *ROWS, "b,a dog,1,0,entity,is there a dog?"]))
    params = VqaParams(
        name="blip",
        weights=local(tmp_path, "config.json", "model.safetensors"),
        tokenizer=local(tmp_path, "vocab.txt"),
        propositions=local(tmp_path, "dpg.csv"),
    )
    return model, params


@pytest.fixture
def judge(described, tmp_path):
    return described[0], load_network(described[1], tmp_path, CPU)


def test_answers_and_their_propositions_become_columns(described, tmp_path, compute):
    writer, size = ImageWriter(tmp_path / "images", 2, 2), (96, 96)
    pictures = [photographs()[name].resize(size) for name in ("chelsea.png", "coffee.png")]
    writer.write(0, {"image": torch.stack([v2.functional.pil_to_tensor(one) for one in pictures])})
    texts = ["a black cat", "a dog"]
    images = writer.finish(pd.DataFrame({"prompt_row": range(2), "text": texts}))
    scorers = ScorersParams(networks=(described[1],), folder=tmp_path, batch_size=2)
    features = extract_features(images.handle, scorers, compute, tmp_path / "run")
    rows = load_network(described[1], tmp_path, CPU).features(pictures, texts)["yes"]
    confidence = ConfidenceParams(level=0.95, draws=20, groups=2, seed=0)
    params = MetricParams(features="blip.yes", neighbours=5)
    table = measure("dpg", [Scored("student", features)], None, params, confidence).set_index("metric")
    (cat, black), dog = (rows[0] > 0.5).tolist(), bool(rows[1, 0] > 0.5)
    assert table.loc["dpg_entity_by_blip", "value"] == 100 * (cat + dog) / 2
    assert table.loc["dpg_by_blip", "value"] == 100 * ((cat + (cat and black)) / 2 + dog) / 2


def test_the_judge_gives_the_probability_of_yes_that_transformers_gives(judge):
    model, network = judge
    images = [photographs()[name] for name in ("chelsea.png", "coffee.png", "rocket.jpg")]
    rows = network.features(images, ["a black cat", "a dog", "a black cat"])["yes"]
    assert rows.shape == (3, 2)
    assert rows[1, 1] == -1
    size = v2.Resize((384, 384), v2.InterpolationMode.BICUBIC)
    steps = v2.Compose([size, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    tokens = {"is there a cat?": [2, 7, 8, 9, 10, 12, 3], "is the cat black?": [2, 7, 13, 10, 14, 12, 3]}
    for place in (0, 2):
        for column, ids in enumerate(tokens.values()):
            asked = torch.tensor([ids])
            with torch.no_grad():
                seen = model.vision_model(steps(images[place])[None]).last_hidden_state
                understood = model.text_encoder(input_ids=asked, encoder_hidden_states=seen).last_hidden_state
                read = model.text_decoder(input_ids=torch.tensor([[15]]), encoder_hidden_states=understood)
            expected = read.logits[0, -1, [5, 6]].softmax(-1)[0]
            assert float(rows[place, column]) == pytest.approx(float(expected), rel=1e-4)
    assert rows[0, 0] != rows[0, 1]


def test_an_image_of_a_caption_without_propositions_is_not_looked_at(judge):
    rows = judge[1].features([photographs()["chelsea.png"]] * 2, ["a bird", "a dog"])["yes"]
    assert rows[0].isnan().all()
    assert rows[1].isfinite().all()


@pytest.fixture
def detector(tmp_path):
    config = YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=[64, 64],
        num_detection_tokens=6,
        id2label={0: "cat", 1: "dog", 2: "cup"},
    )
    model = YolosForObjectDetection(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.4 * torch.randn(parameter.shape, generator=generator))
        model.class_labels_classifier.layers[-1].bias[-1] = -1000  # no box is empty
    model.save_pretrained(tmp_path / "detector")
    processor = YolosImageProcessor(size={"height": 64, "width": 64})
    processor.save_pretrained(tmp_path / "detector")
    _, weights = write_clip(tmp_path / "clip", clip_config())
    colours = ClipParams(
        name="colours", weights=weights, architecture=write_architecture(tmp_path / "architecture", clip_config())
    )
    files = local(tmp_path / "detector", "config.json", "preprocessor_config.json", "model.safetensors")
    case = {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"}
    (tmp_path / "cases.jsonl").write_text(json.dumps(case))
    params = DetectorParams(name="yolos", weights=files, colours=colours, cases=local(tmp_path, "cases.jsonl"))
    return model, processor, load_network(params, tmp_path, CPU), params


def test_objects_are_those_that_transformers_finds(detector):
    model, processor, network, _ = detector
    images = [photographs()[name] for name in ("chelsea.png", "coffee.png")]
    rows = network.features(images, ["a photo of a cat"] * 2)["objects"]
    assert network.features(images[:1], ["another"])["objects"].isnan().all()
    assert rows.shape == (2, 100, 7)
    for image, found in zip(images, rows, strict=True):
        with torch.no_grad():
            outputs = model(**processor([image], return_tensors="pt"))
        expected = processor.post_process_object_detection(outputs, 0.3, [(image.height, image.width)])[0]
        order = expected["scores"].argsort(descending=True)
        count = len(order)
        assert count > 0
        torch.testing.assert_close(found[:count, 0], expected["scores"][order])
        assert found[:count, 1].tolist() == expected["labels"][order].tolist()
        torch.testing.assert_close(found[:count, 2:6], expected["boxes"][order])
        assert (found[count:] == -1).all()


def test_the_kind_of_detector_that_real_models_name_has_all_its_weights_and_genevals_names(detector, tmp_path):
    stages = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    widths = dict.fromkeys(("encoder_hidden_dim", "encoder_ffn_dim", "d_model", "decoder_ffn_dim"), 32)
    config = RTDetrConfig(
        backbone_config=RTDetrResNetConfig(**stages, out_features=["stage2", "stage3", "stage4"]),
        **widths,
        encoder_in_channels=[8, 16, 16],
        decoder_in_channels=[32, 32, 32],
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        decoder_layers=2,
        num_queries=10,
        id2label={0: "cat", 1: "sofa"},
    )
    model = RTDetrForObjectDetection(config).eval()
    model.save_pretrained(tmp_path / "rtdetr")
    processor = RTDetrImageProcessor(size={"height": 64, "width": 64})
    processor.save_pretrained(tmp_path / "rtdetr")
    files = local(tmp_path / "rtdetr", "config.json", "preprocessor_config.json", "model.safetensors")
    params = detector[3].model_copy(update={"weights": files})
    network, image = load_network(params, tmp_path, CPU), photographs()["chelsea.png"]
    inputs = processor([image], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, network.model(**inputs).logits)
    notes = dict(params.notes({part: source.folder(tmp_path) for part, source in params.sources().items()}))
    assert json.loads(notes["classes.json"]) == {"0": "cat", "1": "couch"}


def test_rows_become_detections():
    rows = torch.tensor([[0.75, 1, 2, 3, 4, 5, 4], [0.5, 0, 0, 0, 1, 1, -1], [-1.0] * 7])
    found = detections(rows, {0: "cat", 1: "dog"})
    assert found == [Detection("dog", 0.75, (2, 3, 4, 5), COLOURS[4]), Detection("cat", 0.5, (0, 0, 1, 1), "")]
