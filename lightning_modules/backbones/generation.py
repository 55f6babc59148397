"""How replies are generated: the decoding settings, and candidates for a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from artefacts.ranges import AT_LEAST_0, AT_LEAST_1, POSITIVE, POSITIVE_SHARE, require
from datamodules.batches import Seq2SeqBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Decoding:
    """Decoding settings. None is stated in the paper; the defaults follow the authors' earlier public model.

    Args:
        num_candidates: replies generated for one context (10 or more in that model).
        num_beams: width of the beam search; 1 is greedy search or plain sampling.
        sample: draw tokens instead of taking the most likely ones.
        top_p: sample from the most likely tokens that have this probability together.
        temperature: of the distribution that is sampled from.
        no_repeat_ngram_size: no sequence of this many tokens comes twice in one reply; 0 allows it.
        max_new_tokens: longest reply, in tokens.
    """

    num_candidates: int = 1
    num_beams: int = 1
    sample: bool = True
    top_p: float = 0.9
    temperature: float = 1.0
    no_repeat_ngram_size: int = 3
    max_new_tokens: int = 48

    def __post_init__(self) -> None:
        require(
            vars(self),
            num_candidates=AT_LEAST_1,
            num_beams=AT_LEAST_1,
            top_p=POSITIVE_SHARE,
            temperature=POSITIVE,
            no_repeat_ngram_size=AT_LEAST_0,
            max_new_tokens=AT_LEAST_1,
        )
        if not self.sample and self.num_candidates > self.num_beams:
            raise ValueError(
                f"{self.num_candidates} candidates without sampling need num_beams of at least as many, "
                f"got {self.num_beams}; raise num_beams or set sample to true"
            )


@torch.no_grad()
def generate(model: PreTrainedModel, batch: Seq2SeqBatch, decoding: Decoding) -> Tensor:
    """Candidates of every row, (rows, num_candidates, length), padded with the padding id.

    Candidates of one row stand together and rows keep their order, so that rows grouped by user stay grouped.
    """
    sampling = {"top_p": decoding.top_p, "temperature": decoding.temperature, "top_k": 0} if decoding.sample else {}
    if decoding.sample and decoding.num_beams == 1 and batch.input_ids.device.type == "cpu":
        sampling |= {"top_p": 1.0, "logits_processor": [Nucleus(decoding.top_p, decoding.temperature)]}
    tokens = model.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        do_sample=decoding.sample,
        num_beams=decoding.num_beams,
        num_return_sequences=decoding.num_candidates,
        no_repeat_ngram_size=decoding.no_repeat_ngram_size,
        max_new_tokens=decoding.max_new_tokens,
        **sampling,
    )
    return tokens.view(len(batch.input_ids), decoding.num_candidates, -1)


@dataclass(frozen=True)
class Nucleus:
    """What transformers' `TopPLogitsWarper` keeps, on a CPU, without the positions of the sorted tokens.

    torch sorts positions along with the scores, which took 45 % of the time of sampled generation (4.6M parameters,
    64 rows); numpy sorts the scores alone. It comes before the temperature is applied, so it does so itself.
    """

    top_p: float
    temperature: float

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # (rows, vocabulary)
        ordered = torch.from_numpy(np.sort(scores.numpy(), axis=-1))
        unlikely = (ordered / self.temperature).softmax(-1).cumsum(-1) <= 1 - self.top_p
        first = unlikely.sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)  # the most likely one always stays
        return scores.masked_fill(scores < ordered.gather(-1, first), -torch.inf)
