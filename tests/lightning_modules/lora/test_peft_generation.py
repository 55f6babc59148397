"""Whatever a method of PEFT adds acts on generated replies exactly as on their likelihood.

The reference is the likelihood alone: `row_nll_of_wrapper` and the logits behind it, with all labels given at once and
no cache of keys and values. Methods get random weights that change every reply.
"""

from copy import deepcopy
from itertools import product

import pytest
import torch
from fitting import logits_of, strip
from peft import PeftModel, get_peft_config, get_peft_model

from lightning_modules.backbones.generation import Decoding, generate
from lightning_modules.user_tuning import row_nll_of_wrapper

SEQ2SEQ = {"task_type": "SEQ_2_SEQ_LM"}
METHODS = {
    "prefix": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4, **SEQ2SEQ},
    "ia3": {"peft_type": "IA3", "target_modules": ["k", "v", "wo"], "feedforward_modules": ["wo"], **SEQ2SEQ},
    "dora": {"peft_type": "LORA", "r": 4, "use_dora": True, "target_modules": ["q", "k", "v", "wo"], **SEQ2SEQ},
}
GREEDY = Decoding(sample=False, no_repeat_ngram_size=0, max_new_tokens=8)
END = 1


@pytest.fixture(params=METHODS)
def tuned(request, tiny_model, tmp_path):
    """The tiny model with a method whose weights are random, saved and read again as for a prediction.

    The end is not among the likeliest first tokens.
    """
    with torch.no_grad():
        tiny_model.shared.weight[END] = 0
    torch.manual_seed(7)
    model = get_peft_model(deepcopy(tiny_model), get_peft_config(METHODS[request.param])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * (2 if request.param == "prefix" else 0.7))
    model.save_pretrained(tmp_path)
    return PeftModel.from_pretrained(tiny_model, str(tmp_path)).eval()


def replies(candidates):
    """Rows → candidates → ids, without the decoder's start and what follows the end."""
    return [[strip(one[1:]) for one in row] for row in candidates.tolist()]


def test_greedy_replies_are_the_most_likely_tokens_of_the_likelihood(tuned, batch, make_batch):
    inputs = [
        ids[: sum(mask)] for ids, mask in zip(batch.input_ids.tolist(), batch.attention_mask.tolist(), strict=True)
    ]
    found = [one for (one,) in replies(generate(tuned, batch, GREEDY))]  # six rows, all but one padded
    for ids, reply in zip(inputs, found, strict=True):
        likeliest = logits_of(tuned, make_batch([ids], [reply])).argmax(-1)[0].tolist()
        assert reply == likeliest
    with tuned.disable_adapter():
        bare = [one for (one,) in replies(generate(tuned.get_base_model(), batch, GREEDY))]
    assert all(ours != theirs for ours, theirs in zip(found, bare, strict=True))
    assert len(set(map(tuple, found))) > 1  # the context matters too


def test_a_row_gets_the_likelihood_it_has_alone(tuned, batch, make_batch):
    nll, tokens = row_nll_of_wrapper(tuned, batch)
    for row in range(6):
        ids = batch.input_ids[row][batch.attention_mask[row].bool()].tolist()
        labels = batch.labels[row][batch.labels[row] >= 0].tolist()
        (alone,), (count,) = row_nll_of_wrapper(tuned, make_batch([ids], [labels]))
        assert (nll[row].item(), tokens[row]) == (pytest.approx(alone.item(), rel=1e-5), count)


def test_beams_find_the_likeliest_replies_of_all(tuned, make_batch):
    """As many beams as there are tokens, and two tokens: the search leaves nothing out."""
    inputs = [[5, 6, 7, 1], [8, 1]]
    decoding = Decoding(num_candidates=4, num_beams=40, sample=False, no_repeat_ngram_size=0, max_new_tokens=2)
    found = replies(generate(tuned, make_batch(inputs, [[1], [1]]), decoding))
    everything = [list(pair) for pair in product(range(40), repeat=2) if pair[0] != END]
    for ids, candidates in zip(inputs, found, strict=True):
        nll, _ = row_nll_of_wrapper(tuned, make_batch([ids] * len(everything), everything))
        assert candidates == [everything[index] for index in nll.argsort()[:4]]


def test_every_sampled_candidate_is_drawn_from_the_likelihood(tuned, batch):
    """A nucleus of one token makes each of the three candidates the greedy one."""
    decoding = Decoding(num_candidates=3, top_p=1e-6, no_repeat_ngram_size=0, max_new_tokens=8)
    greedy = replies(generate(tuned, batch, GREEDY))
    assert replies(generate(tuned, batch, decoding)) == [row * 3 for row in greedy]
