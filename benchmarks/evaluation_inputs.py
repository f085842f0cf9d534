"""Images and networks for the benchmark of evaluations."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import alexnet, inception_v3
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

CLIPS = {"clip": 224, "clip336": 336, "pick_score": 224}
"""Names of CLIPs and the size that they read."""
EMBEDDING = 768
AESTHETIC = ((0, 768, 1024), (2, 1024, 128), (4, 128, 64), (6, 64, 16), (7, 16, 1))
"""Place, inputs and outputs of the aesthetic head's layers."""


def write_images(folder: Path, count: int, size: int, seed: int) -> None:
    """Pictures with smooth and noisy parts, as PNG."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    for number in range(count):
        coarse = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        pixels = np.array(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
        pixels[:, : size // 4] ^= generator.integers(0, 32, (size, size // 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")


def write_networks(root: Path, width: int, inception: str = "published") -> None:
    """Random weights in the formats that are published; Inception as large as the published one, or ``small``."""
    torch.manual_seed(0)
    _write_inception(root / "inception-2015-12-05.pt", inception)
    sizes: dict[str, Any] = {"hidden_size": width, "num_attention_heads": width // 64, "intermediate_size": 4 * width}
    for name, image_size in CLIPS.items():
        text = {**sizes, "num_hidden_layers": 4, "bos_token_id": 49406, "eos_token_id": 49407}
        vision = {**sizes, "num_hidden_layers": 12, "patch_size": 16, "image_size": image_size}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=EMBEDDING)
        CLIPModel(config).save_pretrained(root / name)
        write_vocabulary(root / name)
    config = Dinov2Config(hidden_size=width, num_hidden_layers=12, num_attention_heads=width // 64, image_size=518)
    Dinov2Model(config).save_pretrained(root / "dinov2")
    save_file(alexnet(weights=None).state_dict(), root / "alexnet.safetensors")
    layers = {f"layers.{index}": nn.Linear(entering, leaving) for index, entering, leaving in AESTHETIC}
    head = {f"{name}.{part}": value for name, layer in layers.items() for part, value in layer.state_dict().items()}
    save_file(head, root / "aesthetic.safetensors")


def write_vocabulary(folder: Path) -> None:
    """The vocabulary of CLIP, which open_clip ships, in the files that transformers reads."""
    packed = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(packed.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    encoder = open_clip.tokenizer.SimpleTokenizer().encoder
    (folder / "vocab.json").write_text(json.dumps({names.get(word, word): place for word, place in encoder.items()}))


class _Published(nn.Module):
    """The outside of the published TorchScript file."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """Features of pixels in [0, 255]."""
        return self.layers((x - 128) / 128)


def _write_inception(path: Path, size: str) -> None:
    trunk: nn.Module
    if size == "small":
        trunk = nn.Sequential(nn.Conv2d(3, 2048, 32, 32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    else:
        trunk = inception_v3(weights=None, aux_logits=False, init_weights=False).eval()
        trunk.fc = nn.Identity()
    layers = torch.jit.trace(trunk, torch.rand(2, 3, 299, 299))
    torch.jit.script(_Published(layers)).save(str(path))
