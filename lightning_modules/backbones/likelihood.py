"""The log-likelihood of replies: summed negative log-likelihood in nats and the count of label tokens, divided once.

Shapes: b rows, s input positions, t label positions, n label tokens, d model width, v vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import cross_entropy, linear, linear_cross_entropy

from datamodules.batches import IGNORED, Seq2SeqBatch

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

# The projection onto the vocabulary is done in chunks whose logits stay in the cache and are never kept. On
# two CPU cores a whole training step gets a third faster by it, with 256 rows a chunk and the policy "accurate".
CPU_CHUNKS = LinearCrossEntropyOptions(batch_chunk_size=256, chunking_method=None, acc_policy="accurate")
GPU_CHUNKS = LinearCrossEntropyOptions()


def reply_states(model: T5ForConditionalGeneration, batch: Seq2SeqBatch) -> Tensor:
    """The decoder's output before the vocabulary projection, (b, t, d), with the labels as its input."""
    labels = batch.labels
    start = labels.new_full((labels.shape[0], 1), model.config.decoder_start_token_id)
    shifted = torch.cat([start, labels[:, :-1]], dim=1)
    shifted = shifted.masked_fill(shifted == IGNORED, model.config.pad_token_id)
    encoded = model.encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    states = model.decoder(
        input_ids=shifted,
        encoder_hidden_states=encoded.last_hidden_state,
        encoder_attention_mask=batch.attention_mask,
        use_cache=False,
    ).last_hidden_state
    return states * model.config.d_model**-0.5 if model.config.scale_decoder_outputs else states


def summed_nll(model: T5ForConditionalGeneration, states: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood in nats of labels, (b, t), summed; for training, with the states of `reply_states`."""
    known = labels != IGNORED
    dtype = torch.get_autocast_dtype(states.device.type) if torch.is_autocast_enabled(states.device.type) else None
    hidden, weight = states[known], model.lm_head.weight  # (n, d), (v, d)
    if dtype is not None:
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    options = CPU_CHUNKS if states.device.type == "cpu" else GPU_CHUNKS
    return linear_cross_entropy(hidden, weight, labels[known], reduction="sum", options=options)


@torch.no_grad()
def row_nll(model: T5ForConditionalGeneration, batch: Seq2SeqBatch) -> tuple[Tensor, Tensor]:
    """Summed negative log-likelihood in nats and label tokens of every row, both (b,); for evaluation.

    Logits are computed in 32 bits also under autocast: on 16-bit logits perplexity is several per cent off.
    """
    known = batch.labels != IGNORED
    states = reply_states(model, batch)
    with torch.autocast(states.device.type, enabled=False):
        logits = linear(states[known].float(), model.lm_head.weight.float())  # (n, v)
    nll = torch.zeros(batch.labels.shape, dtype=torch.float32, device=logits.device)
    nll[known] = cross_entropy(logits, batch.labels[known], reduction="none")
    return nll.sum(1), known.sum(1)
