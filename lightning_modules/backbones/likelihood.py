"""The log-likelihood of replies: summed negative log-likelihood in nats and the count of label tokens, divided once.

Shapes: b rows, s input positions, t label positions, n label tokens, d model width, v vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import cross_entropy, linear, linear_cross_entropy
from torch.utils.checkpoint import checkpoint

from datamodules.batches import IGNORED, Seq2SeqBatch

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

# The projection onto the vocabulary is done in chunks whose logits stay in the cache and are never kept. On
# two CPU cores a whole training step gets a third faster by it, with 256 rows a chunk and the policy "accurate".
CPU_CHUNKS = LinearCrossEntropyOptions(batch_chunk_size=256, chunking_method=None, acc_policy="accurate")

LOGITS_AT_ONCE = 2**27
"""On other devices, where every operator has a price, the projection is one product up to so many logits (0.5 GB in
fp32: 4,177 tokens with a vocabulary of 32,128, or 8 users with 500 tokens each)."""


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
    return user_nll(model, states, labels, num_users=1)[0]


def user_nll(model: T5ForConditionalGeneration, states: Tensor, labels: Tensor, num_users: int) -> Tensor:
    """The same for each of some users who have equally many rows, one user after the other; (num_users,)."""
    weight, device = model.lm_head.weight, states.device.type
    if torch.is_autocast_enabled(device):
        states = states.to(torch.get_autocast_dtype(device))
    if device != "cpu":
        return token_nll(states, weight, labels).view(num_users, -1).sum(1)
    weight = weight.to(states.dtype)
    return torch.stack(
        [
            linear_cross_entropy(own[known], weight, wanted[known], reduction="sum", options=CPU_CHUNKS)
            for own, wanted in zip(states.chunk(num_users), labels.chunk(num_users), strict=True)
            for known in [wanted != IGNORED]
        ]
    )


def token_nll(states: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each label, (b * t,) float32, zero where there is none; without a wait.

    Above `LOGITS_AT_ONCE` it is done in chunks whose logits are computed again for the gradient instead of kept.
    """
    states, labels = states.flatten(0, 1), labels.flatten()
    size = max(1, LOGITS_AT_ONCE // len(weight))
    if len(labels) <= size:
        return _projected_nll(states, weight, labels)
    chunks = zip(states.split(size), labels.split(size), strict=True)
    again = partial(checkpoint, _projected_nll, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(own, weight, wanted) for own, wanted in chunks])


def _projected_nll(states: Tensor, weight: Tensor, labels: Tensor) -> Tensor:  # (n, d), (v, d), (n,) -> (n,)
    # The weight is cast in each chunk, so that its gradient is added up in its own precision.
    logits = linear(states, weight.to(states.dtype)).float()
    return cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")


@torch.no_grad()
def row_nll(model: T5ForConditionalGeneration, batch: Seq2SeqBatch) -> tuple[Tensor, Tensor]:
    """Summed negative log-likelihood in nats and label tokens of every row, both (b,); for evaluation.

    Logits are computed in 32 bits also under autocast: on 16-bit logits perplexity is several per cent off.
    """
    known = batch.labels != IGNORED
    states = reply_states(model, batch)
    with torch.autocast(states.device.type, enabled=False):
        if states.device.type != "cpu":
            nll = token_nll(states.float(), model.lm_head.weight.float(), batch.labels)
            return nll.view(len(known), -1).sum(1), known.sum(1)
        logits = linear(states[known].float(), model.lm_head.weight.float())  # (n, v)
    nll = torch.zeros(batch.labels.shape, dtype=torch.float32, device=logits.device)
    nll[known] = cross_entropy(logits, batch.labels[known], reduction="none")
    return nll.sum(1), known.sum(1)
