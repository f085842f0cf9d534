"""Untrained Stable Diffusion 3 components of any size, with tokenizers over a given list of words.

The embedded teacher and the checkpoints of the tests are both made here, in the format of the published ones.
"""

import json
from string import ascii_lowercase, digits

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from pydantic import PositiveFloat, PositiveInt
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from onex_distill.parameters import Params


class ArchitectureParams(Params):
    """Sizes of a small Stable Diffusion 3 model; the text widths follow from ``clip_dim`` and ``t5_dim``."""

    latent_size: PositiveInt
    latent_channels: PositiveInt
    autoencoder_channels: tuple[PositiveInt, ...]
    num_layers: PositiveInt
    attention_head_dim: PositiveInt
    num_attention_heads: PositiveInt
    patch_size: PositiveInt
    qk_norm: str | None
    dual_attention_layers: tuple[int, ...]
    clip_dim: PositiveInt
    t5_dim: PositiveInt
    text_layers: PositiveInt
    max_tokens: PositiveInt
    shift: PositiveFloat


def build_transformer(params: ArchitectureParams) -> SD3Transformer2DModel:
    """The velocity network."""
    width = params.attention_head_dim * params.num_attention_heads
    return SD3Transformer2DModel(
        sample_size=params.latent_size,
        patch_size=params.patch_size,
        in_channels=params.latent_channels,
        out_channels=params.latent_channels,
        num_layers=params.num_layers,
        attention_head_dim=params.attention_head_dim,
        num_attention_heads=params.num_attention_heads,
        joint_attention_dim=params.t5_dim,
        caption_projection_dim=width,
        pooled_projection_dim=2 * params.clip_dim,
        pos_embed_max_size=2 * params.latent_size,
        dual_attention_layers=params.dual_attention_layers,
        qk_norm=params.qk_norm,
    )


def build_autoencoder(params: ArchitectureParams) -> AutoencoderKL:
    """The autoencoder, without quantisation convolutions, as in Stable Diffusion 3."""
    levels = len(params.autoencoder_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=params.autoencoder_channels,
        layers_per_block=1,
        latent_channels=params.latent_channels,
        norm_num_groups=8,
        sample_size=params.latent_size * 2 ** (levels - 1),
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def build_tokenizers(words: list[str], max_tokens: int) -> tuple[CLIPTokenizer, CLIPTokenizer, T5Tokenizer]:
    """Tokenizers in which every given word is one token and any other word falls apart into smaller pieces."""
    vocabulary, merges = _byte_pair_vocabulary(words)
    clips = [CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_tokens) for _ in range(2)]
    letters = sorted({letter for word in words for letter in word} | set(ascii_lowercase + digits))
    unigrams = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0)]
    unigrams += [(f"▁{word}", -2.0) for word in words] + [(letter, -8.0) for letter in letters]
    t5 = T5Tokenizer(vocab=unigrams, extra_ids=0, model_max_length=max_tokens)
    return clips[0], clips[1], t5


def _byte_pair_vocabulary(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's vocabulary and merges: all bytes, alone and at the end of a word, and the merges that build the words."""
    alphabet = sorted(ByteLevel.alphabet())
    endings = [f"{byte}</w>" for byte in alphabet]
    # given as special tokens, because the trainer numbers endings that it finds itself in the order of a hash map
    trainer = BpeTrainer(
        end_of_word_suffix="</w>", initial_alphabet=alphabet, special_tokens=endings, show_progress=False
    )
    tokenizer = Tokenizer(BPE())
    tokenizer.train_from_iterator(words, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    pieces = [*alphabet, *endings, *sorted(model["vocab"], key=model["vocab"].get)]
    unique = list(dict.fromkeys(["<|startoftext|>", *pieces, "<|endoftext|>"]))
    return {piece: i for i, piece in enumerate(unique)}, [tuple(merge) for merge in model["merges"]]


def build_text_encoders(
    params: ArchitectureParams, clip_tokenizer: CLIPTokenizer, t5_tokenizer: T5Tokenizer
) -> tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection, T5EncoderModel]:
    """Two CLIP text encoders and a T5 encoder; the CLIP widths sum to at most the T5 width, as the pipeline pads."""
    clip_config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer),
        hidden_size=params.clip_dim,
        intermediate_size=2 * params.clip_dim,
        projection_dim=params.clip_dim,
        num_hidden_layers=params.text_layers,
        num_attention_heads=2,
        max_position_embeddings=params.max_tokens,
        bos_token_id=clip_tokenizer.bos_token_id,
        eos_token_id=clip_tokenizer.eos_token_id,
        pad_token_id=clip_tokenizer.pad_token_id,
    )
    t5_config = T5Config(
        vocab_size=len(t5_tokenizer),
        d_model=params.t5_dim,
        d_kv=params.t5_dim // 2,
        d_ff=2 * params.t5_dim,
        num_layers=params.text_layers,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,  # dropout would draw from the global generator, and a resumed run would differ
    )
    return CLIPTextModelWithProjection(clip_config), CLIPTextModelWithProjection(clip_config), T5EncoderModel(t5_config)


def build_scheduler(params: ArchitectureParams) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler that the published checkpoints carry, with this shift."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=params.shift)
