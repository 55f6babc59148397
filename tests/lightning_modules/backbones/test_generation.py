"""Candidates: how many, in which order, and the settings that cannot be."""

import pytest
import torch
from fitting import strip
from transformers import TopPLogitsWarper

from lightning_modules.backbones.generation import Decoding, Nucleus, generate

PLAIN = {"sample": False, "no_repeat_ngram_size": 0, "max_new_tokens": 12}


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(num_candidates=3, max_new_tokens=5),
        Decoding(num_candidates=2, num_beams=2, sample=False, max_new_tokens=5),
        Decoding(num_candidates=3, num_beams=4, max_new_tokens=5),
        Decoding(num_candidates=1, sample=False, max_new_tokens=5),
    ],
    ids=["sampling", "beams", "sampled beams", "greedy"],
)
def test_every_row_gets_its_number_of_candidates(tiny_model, batch, decoding):
    candidates = generate(tiny_model, batch, decoding)
    assert candidates.shape[:2] == (6, decoding.num_candidates)
    assert candidates.shape[2] <= 1 + decoding.max_new_tokens  # the decoder's start comes first


def test_greedy_replies_are_the_most_likely_tokens(tiny_model, make_batch):
    (found,) = generate(tiny_model, make_batch([[5, 6, 1]], [[1]]), Decoding(**PLAIN))[0].tolist()
    expected = [0]
    while len(expected) < 13 and expected[-1] != 1:
        logits = tiny_model(input_ids=torch.tensor([[5, 6, 1]]), decoder_input_ids=torch.tensor([expected])).logits
        expected.append(int(logits[0, -1].argmax()))
    assert found == expected


def test_candidates_of_a_row_stand_together(tiny_model, make_batch):
    decoding = Decoding(num_candidates=2, num_beams=2, **PLAIN)
    both = generate(tiny_model, make_batch([[5, 6, 1], [9, 10, 11, 1]], [[1], [1]]), decoding)
    for row, ids in enumerate(([5, 6, 1], [9, 10, 11, 1])):
        (alone,) = generate(tiny_model, make_batch([ids], [[1]]), decoding)
        assert [strip(ids) for ids in both[row].tolist()] == [strip(ids) for ids in alone.tolist()]


@pytest.mark.parametrize("size", [1, 2])
def test_no_sequence_of_this_size_comes_twice(tiny_model, make_batch, size):
    def repeats(decoding):
        ids = generate(tiny_model, make_batch([[5, 6, 1]], [[1]]), decoding)[0, 0, 1:].tolist()
        grams = [tuple(ids[start : start + size]) for start in range(len(ids) - size + 1)]
        return len(grams) - len(set(grams))

    with torch.no_grad():
        tiny_model.shared.weight[1] = 0  # so that the reply does not end at once
    assert repeats(Decoding(**PLAIN)) > 0
    assert repeats(Decoding(**{**PLAIN, "no_repeat_ngram_size": size})) == 0


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
@pytest.mark.parametrize("top_p", [1e-6, 0.5, 0.9, 1.0])
def test_the_nucleus_is_that_of_transformers(top_p, temperature):
    scores = 3 * torch.randn(20, 500, generator=torch.Generator().manual_seed(1))
    scores[:, :3] = -torch.inf  # tokens that may not come
    expected = TopPLogitsWarper(top_p)(None, scores / temperature)
    assert torch.equal(Nucleus(top_p, temperature)(None, scores) / temperature, expected)


def test_samples_are_those_of_transformers(tiny_model, batch):
    torch.manual_seed(3)
    ours = generate(tiny_model, batch, Decoding(temperature=1.3, max_new_tokens=6))
    torch.manual_seed(3)
    settings = {"do_sample": True, "top_p": 0.9, "temperature": 1.3, "top_k": 0, "no_repeat_ngram_size": 3}
    theirs = tiny_model.generate(batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=6, **settings)
    assert torch.equal(ours[:, 0], theirs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_candidates": 0}, "num_candidates must be 1 or more, got 0"),
        ({"max_new_tokens": 0}, "must be 1 or more"),
        ({"num_candidates": 3, "num_beams": 2, "sample": False}, "3 candidates without sampling need num_beams"),
    ],
)
def test_wrong_settings_say_what_to_do(settings, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**settings)
