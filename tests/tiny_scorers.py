"""Tiny random checkpoints in the original formats, and the files around them."""

import hashlib
import json
from pathlib import Path

import torch
from open_clip.model import CLIP as OpenClip
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from evaluation_inputs import write_vocabulary
from onex_distill.evaluation.scorers.weights import File, Source

WIDTH, LAYERS = 64, 2


def local(folder: Path, *names: str) -> Source:
    """Files of a folder."""
    return Source(hub="local", location=str(folder), files=tuple(File(name=name) for name in names))


def seeded(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every weight drawn anew, biases and scales too, so that a lost one changes the result."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter * 0.5 + 0.1 * noise)
    return module.eval()


def clip_config(hidden_act: str = "quick_gelu", image_size: int = 224) -> CLIPConfig:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
    text = CLIPTextConfig(**sizes, projection_dim=32, hidden_act=hidden_act, eos_token_id=49407, bos_token_id=49406)
    vision = CLIPVisionConfig(**sizes, projection_dim=32, hidden_act=hidden_act, patch_size=32, image_size=image_size)
    return CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=32)


def write_architecture(folder: Path, config: CLIPConfig) -> Source:
    """config.json and the real vocabulary of CLIP, which open_clip ships."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    write_vocabulary(folder)
    return local(folder, "config.json", "vocab.json", "merges.txt")


def write_clip(folder: Path, config: CLIPConfig, seed: int = 0) -> tuple[CLIPModel, Source]:
    """A CLIP in the format of transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    model = seeded(CLIPModel(config), seed)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return model, local(folder, "model.safetensors")


def open_clip_model(seed: int = 0, quick_gelu: bool = False) -> OpenClip:
    """A CLIP of open_clip with the sizes of ``clip_config``."""
    vision = {"layers": LAYERS, "width": WIDTH, "head_width": 16, "mlp_ratio": 2.0, "patch_size": 32, "image_size": 224}
    text = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 4, "layers": LAYERS, "mlp_ratio": 2.0}
    return seeded(OpenClip(32, vision, text, quick_gelu=quick_gelu), seed)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
