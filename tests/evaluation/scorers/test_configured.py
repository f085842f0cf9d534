"""Every network that the environments of real models name is built as they say, from tiny files in its formats."""

import json
from pathlib import Path

import lpips
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn
from torchvision.models import alexnet
from transformers import (
    BlipConfig,
    BlipForQuestionAnswering,
    Dinov2Config,
    Dinov2Model,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
)

from blip_original import random_state
from onex_distill.evaluation.features import ScorersParams
from onex_distill.evaluation.scorers.base import identity, load_network, missing_rows
from onex_distill.evaluation.scorers.states import convert_pickle
from photographs import photographs
from support import PROJECT
from tiny_scorers import clip_config, open_clip_model, seeded, sha256_of, write_architecture, write_clip

CPU = torch.device("cpu")
NAMES = tuple(
    one["name"]
    for one in yaml.safe_load((PROJECT / "conf/sd3/parameters_scoring.yml").read_text())["scorers"]["networks"]
)
CAPTION, WORDS = "a photo of a cat", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", "a", "[DEC]"]
RECIPES = {
    "pixels": "as_they_are",
    "inception": "clean299",
    "patches": "crop299",
    "clip_l14": "clip224",
    "clip_b32": "clip224",
    "clip_g14": "clip224_from256",
    "clip_l14_336": "clip336",
    "pick_score": "clip224",
    "hps_v21": "hps224",
    "hps_v2": "hps224",
    "image_reward": "clip224",
    "dinov2": "square224",
    "lpips_alex": "lpips512",
    "blip_vqa": "square384",
    "rtdetr": "preprocessor_config.json",
}
ORIGINAL_CLIPS = ("clip_g14", "hps_v21", "hps_v2")
"""CLIPs whose file has open_clip's names."""


class TinyInception(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 32, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers((x - 128) / 128)


def write_clip_network(params, root):
    size = 336 if params.preparation == "clip336" else 224
    config = clip_config("gelu" if params.name in ORIGINAL_CLIPS else "quick_gelu", size)
    write_architecture(params.architecture.folder(root), config)
    folder, file = params.weights.folder(root), params.weights.files[0].name
    if params.name in ORIGINAL_CLIPS:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: one.contiguous() for name, one in open_clip_model().state_dict().items()}, folder / file)
    else:
        write_clip(folder, config)
    if params.aesthetic:
        sizes = {0: (32, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
        layers = {f"layers.{place}": nn.Linear(*size) for place, size in sizes.items()}
        state = {f"{name}.{part}": one for name, layer in layers.items() for part, one in layer.state_dict().items()}
        save_file(state, params.aesthetic.folder(root) / params.aesthetic.files[0].name)


def write_blip_vqa(params, root):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**sizes, "vocab_size": len(WORDS), "encoder_hidden_size": 32, "bos_token_id": 8, "is_decoder": True}
    vision = {**sizes, "image_size": 384, "patch_size": 96}
    model = seeded(BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision)), 0)
    model.save_pretrained(params.weights.folder(root))
    (params.tokenizer.folder(root) / "vocab.txt").write_text("\n".join(WORDS))
    header = "item_id,text,proposition_id,dependency,category_broad,question_natural_language"
    (params.propositions.folder(root) / "dpg_bench.csv").write_text(f"{header}\na,{CAPTION},1,0,entity,a cat?")


def write_detector(params, root):
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
    RTDetrForObjectDetection(config).save_pretrained(params.weights.folder(root))
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(params.weights.folder(root))
    case = {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": CAPTION}
    (params.cases.folder(root) / "evaluation_metadata.jsonl").write_text(json.dumps(case))
    write_clip_network(params.colours, root)


def write_network(params, root):
    """Tiny random files where the network's own entry says they are."""
    for source in {**params.sources(), **params.optional()}.values():
        source.folder(root).mkdir(parents=True, exist_ok=True)
    if params.kind == "inception":
        path = params.weights.folder(root) / "inception-2015-12-05.pt"
        torch.jit.script(seeded(TinyInception(), 0)).save(path)
    elif params.kind == "clip":
        write_clip_network(params, root)
    elif params.kind == "image_reward":
        save_file(random_state(len(WORDS) + 2), params.weights.folder(root) / "ImageReward.safetensors")
        (params.tokenizer.folder(root) / "vocab.txt").write_text("\n".join(WORDS))
    elif params.kind == "dinov2":
        config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=518)
        Dinov2Model(config).save_pretrained(params.weights.folder(root))
    elif params.kind == "lpips":
        save_file(alexnet(weights=None).state_dict(), params.backbone.folder(root) / "alexnet.safetensors")
        heads = Path(lpips.__file__).parent / "weights/v0.1/alex.pth"
        convert_pickle(heads, params.heads.folder(root) / "alex.safetensors")
    elif params.kind == "vqa":
        write_blip_vqa(params, root)
    elif params.kind == "detector":
        write_detector(params, root)


def entry(name):
    """A network of the configuration; only the SHA-256 of what is run as TorchScript is that of the tiny file."""
    written = yaml.safe_load((PROJECT / "conf/sd3/parameters_scoring.yml").read_text())["scorers"]
    written["networks"] = [one for one in written["networks"] if one["name"] == name]
    return ScorersParams.model_validate(written).networks[0]


def repinned(params, root):
    path = params.weights.folder(root) / params.weights.files[0].name
    file = params.weights.files[0].model_copy(update={"sha256": sha256_of(path)})
    return params.model_copy(update={"weights": params.weights.model_copy(update={"files": (file,)})})


@pytest.mark.parametrize("name", NAMES)
def test_a_configured_network_is_built_from_files_in_its_formats(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # the benchmarks' files are below data/
    params, root = entry(name), tmp_path / "scorers"
    write_network(params, root)
    if params.kind == "inception":
        params = repinned(params, root)
    assert missing_rows(params, root) == {}
    network = load_network(params, root, CPU)
    rows = network.features([photographs()[one] for one in ("chelsea.png", "coffee.png")], [CAPTION] * 2)
    assert set(rows) == params.gives | set(params.optional())
    for row, values in rows.items():
        assert len(values) == 2, row
        assert values.isfinite().all(), row
        assert params.kind == "lpips" or not torch.equal(values[0], values[1]) or row == "text", row
    assert identity(params, root)["recipe"] == RECIPES[name]
