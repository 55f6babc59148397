"""T5 in three sizes, new or read from a directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from transformers import T5Config, T5ForConditionalGeneration

Size = Literal["tiny", "small", "base"]

# `base` is T5-base v1.0 with tied embeddings: with a vocabulary of 32,128 it has the paper's 222M parameters
# (222,903,552). The paper gives the total only; `small` and `tiny` are ours.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4},
    "small": {"d_model": 192, "d_kv": 32, "d_ff": 768, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 6},
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12},
}


def new_model(size: Size, vocabulary_size: int, dropout: float = 0.0) -> T5ForConditionalGeneration:
    """A T5 with random weights; ids 0 and 1 are padding (also the decoder's start) and end."""
    from transformers import T5ForConditionalGeneration

    with torch.device("cpu"):  # one seed gives the same weights on every device, also in Lightning's context of one
        return prefer_fast_attention(T5ForConditionalGeneration(new_config(size, vocabulary_size, dropout)))


def new_config(size: Size, vocabulary_size: int, dropout: float) -> T5Config:
    """The configuration of a `new_model`."""
    from transformers import T5Config

    return T5Config(
        vocab_size=vocabulary_size,
        dropout_rate=dropout,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        **SIZES[size],
    )


def prefer_fast_attention(model: T5ForConditionalGeneration) -> T5ForConditionalGeneration:
    """On a CPU plain attention is 12 to 15 % faster than `sdpa`, which T5's position bias keeps from its fast path."""
    if not torch.cuda.is_available():
        model.set_attn_implementation("eager")
    return model


def load_model(directory: Path) -> T5ForConditionalGeneration:
    """The model in a directory of Hugging Face's, in 32-bit precision."""
    from transformers import T5ForConditionalGeneration

    model = T5ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
    return prefer_fast_attention(model)
