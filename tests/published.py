"""Random checkpoints in exactly the published formats: published configuration, everything small that only costs time.

Kept are the number of blocks, the normalisation of queries and keys, dual attention, the 16 latent channels with their
scale and shift, the schedule, 77 CLIP tokens, and the layout of files: tokenizers as vocab.json and merges.txt or
tokenizer.json, weights in shards with an index, and a variant in half precision beside them.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from tokenizers import Tokenizer
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from onex_distill.engine.randomness import seeded
from onex_distill.pretraining.architecture import build_tokenizers
from published_models import PublishedModel, write_configs

CLIP_WIDTH, T5_WIDTH, HEADS, HEAD_WIDTH, LATENT_SIZE = 8, 16, 2, 8, 8
SHARD = "100KB"
SMALL: dict[str, dict[str, Any]] = {
    "transformer/config.json": {
        "attention_head_dim": HEAD_WIDTH,
        "num_attention_heads": HEADS,
        "caption_projection_dim": HEADS * HEAD_WIDTH,
        "joint_attention_dim": T5_WIDTH,
        "pooled_projection_dim": 2 * CLIP_WIDTH,
        "sample_size": LATENT_SIZE,
        "pos_embed_max_size": 2 * LATENT_SIZE,
    },
    "vae/config.json": {"block_out_channels": [32] * 4, "sample_size": 8 * LATENT_SIZE},
    "text_encoder_3/config.json": {"d_model": T5_WIDTH, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 1},
}
for name in ("text_encoder", "text_encoder_2"):
    SMALL[f"{name}/config.json"] = {
        "hidden_size": CLIP_WIDTH,
        "intermediate_size": 16,
        "projection_dim": CLIP_WIDTH,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }


def write_checkpoint(
    model: PublishedModel,
    folder: Path,
    words: list[str],
    variants: tuple[str | None, ...] = (None,),
    dtype: torch.dtype = torch.float16,
) -> Path:
    """A tiny random checkpoint whose tokenizers know ``words``.

    ``variants`` may hold None, for files without a variant in their name, and "fp16"; published weights of both are in
    half precision, those without may be of another ``dtype`` here.
    """
    write_configs(model, folder)
    sizes = dict(zip(("tokenizer", "tokenizer_2", "tokenizer_3"), _write_tokenizers(folder, words), strict=True))
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        SMALL[f"{name}/config.json"]["vocab_size"] = sizes[name.replace("text_encoder", "tokenizer")]
    for path, changes in SMALL.items():
        _change(folder / path, changes)
    with seeded(0):
        parts = {
            "transformer": SD3Transformer2DModel.from_config(_json(folder / "transformer/config.json")),
            "vae": AutoencoderKL.from_config(_json(folder / "vae/config.json")),
            "text_encoder": CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(folder / "text_encoder")),
            "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(folder / "text_encoder_2")),
            "text_encoder_3": T5EncoderModel(T5Config.from_pretrained(folder / "text_encoder_3")),
        }
    for name, part in parts.items():
        config = (folder / name / "config.json").read_text()  # the library would write its own version and order
        for variant in variants:
            stored = deepcopy(part).to(torch.float16 if variant == "fp16" else dtype)
            stored.save_pretrained(folder / name, variant=variant, max_shard_size=SHARD)
        (folder / name / "config.json").write_text(config)
    return folder


def _write_tokenizers(folder: Path, words: list[str]) -> list[int]:
    """The files of the three tokenizers, with their special tokens where this vocabulary has them; its three sizes."""
    clip, _, t5 = build_tokenizers(words, 77)
    model = json.loads(clip.backend_tokenizer.to_str())["model"]
    ids = {
        "49406": model["vocab"]["<|startoftext|>"],
        "49407": model["vocab"]["<|endoftext|>"],
        "0": model["vocab"]["!"],
    }
    for name in ("tokenizer", "tokenizer_2"):
        (folder / name / "vocab.json").write_text(json.dumps(model["vocab"]))
        merges = [" ".join(merge) for merge in model["merges"]]
        (folder / name / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
        _renumber(folder / name / "tokenizer_config.json", ids)
    backend: Tokenizer = t5.backend_tokenizer
    backend.add_special_tokens([f"<extra_id_{i}>" for i in reversed(range(100))])
    backend.save(str(folder / "tokenizer_3/tokenizer.json"))
    vocabulary = backend.get_vocab()
    added = {str(32000 + i): vocabulary[f"<extra_id_{99 - i}>"] for i in range(100)}
    _renumber(folder / "tokenizer_3/tokenizer_config.json", {"0": 0, "1": 1, "2": 2, **added})
    return [len(model["vocab"]), len(model["vocab"]), backend.get_vocab_size()]


def _renumber(path: Path, ids: dict[str, int]) -> None:
    added = _json(path)["added_tokens_decoder"]
    _change(path, {"added_tokens_decoder": {str(ids[number]): token for number, token in added.items()}})


def _change(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(_json(path) | changes, indent=2))


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
