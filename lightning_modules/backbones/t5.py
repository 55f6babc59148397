"""The backbone: T5 in three sizes, saved with its tokenizer and prompt in Hugging Face's format.

In: a size, or a directory. Out: a model, or a directory that `AutoModelForSeq2SeqLM.from_pretrained` and
`AutoTokenizer.from_pretrained` load as it is:

    config.json, generation_config.json, model.safetensors     Hugging Face
    tokenizer.json, tokenizer_config.json                      Hugging Face
    prompt.yaml                                                prompt style and wording, with an example
    manifest.json                                              fingerprints; written last
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from tokenizers import Tokenizer

from artefacts.files import publish_directory
from datamodules.prompts.template import PromptTemplate

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

Size = Literal["tiny", "small", "base"]

EXAMPLE_PROFILE = {"age": "20s", "residence": "Tokyo"}

# `base` is T5-base v1.0 with tied embeddings: with a vocabulary of 32,128 it has the paper's 222M parameters
# (222,903,552). The paper gives the total only; `small` and `tiny` are ours.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4},
    "small": {"d_model": 192, "d_kv": 32, "d_ff": 768, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 6},
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12},
}


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone."""

    model: T5ForConditionalGeneration
    tokenizer: Tokenizer
    prompt: PromptTemplate
    fingerprint: str


def new_model(size: Size, vocabulary_size: int, dropout: float = 0.0) -> T5ForConditionalGeneration:
    """A T5 with random weights; ids 0 and 1 are padding (also the decoder's start) and end."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=vocabulary_size,
        dropout_rate=dropout,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        **SIZES[size],
    )
    return prefer_fast_attention(T5ForConditionalGeneration(config))


def prefer_fast_attention(model: T5ForConditionalGeneration) -> T5ForConditionalGeneration:
    """On a CPU plain attention is 12 to 15 % faster than `sdpa`, which T5's position bias keeps from its fast path."""
    if not torch.cuda.is_available():
        model.set_attn_implementation("eager")
    return model


def save_backbone(
    model: T5ForConditionalGeneration,
    tokenizer_directory: Path,
    prompt: PromptTemplate,
    directory: Path,
    **provenance: Any,
) -> str:
    """Writes a backbone under a temporary name and renames it; returns its fingerprint.

    Raises:
        ValueError: another backbone is there already.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer_directory / name, partial / name)
    profile = example_profile(prompt)
    described = {**asdict(prompt), "example": {"profile": profile, "rendered": prompt.render(profile)}}
    (partial / "prompt.yaml").write_text(yaml.safe_dump(described, allow_unicode=True, sort_keys=False))
    fingerprint = _fingerprint(partial)
    manifest = {"fingerprint": fingerprint, **provenance}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    if (directory / "manifest.json").is_file():
        theirs = json.loads((directory / "manifest.json").read_text())["fingerprint"]
        if theirs != fingerprint:
            raise ValueError(f"{directory} holds another backbone ({theirs}); this one is left in {partial}")
    publish_directory(partial, directory)
    return fingerprint


def example_profile(prompt: PromptTemplate) -> dict[str, str]:
    """Somebody whom the prompt's wording can describe."""
    if prompt.style == "user":
        return {"user": "0"}
    if prompt.wording is None:
        return EXAMPLE_PROFILE
    return {name: next(iter(attribute["values"])) for name, attribute in prompt.wording.items()}


def load_model(directory: Path) -> T5ForConditionalGeneration:
    """The model in a directory of Hugging Face's, in 32-bit precision."""
    from transformers import T5ForConditionalGeneration

    model = T5ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
    return prefer_fast_attention(model)


def load_backbone(directory: Path) -> Backbone:
    """Loads a backbone for training or generation, in 32-bit precision.

    Raises:
        FileNotFoundError: there is none; the message names the command that makes it.
        ValueError: its files are not those that its manifest describes.
    """
    if not (directory / "manifest.json").is_file():
        raise FileNotFoundError(f"no backbone in {directory}; {_command_for(directory)}")
    manifest = json.loads((directory / "manifest.json").read_text())
    fingerprint = _fingerprint(directory)
    if fingerprint != manifest["fingerprint"]:
        raise ValueError(
            f"the files in {directory} have fingerprint {fingerprint}, its manifest says {manifest['fingerprint']}: "
            "they were changed or damaged; copy or train it anew"
        )
    described = yaml.safe_load((directory / "prompt.yaml").read_text())
    described.pop("example")
    if described["attributes"] is not None:
        described["attributes"] = tuple(described["attributes"])
    return Backbone(
        model=load_model(directory),
        tokenizer=Tokenizer.from_file(str(directory / "tokenizer.json")),
        prompt=PromptTemplate(**described).resolved(),
        fingerprint=fingerprint,
    )


def _fingerprint(directory: Path) -> str:
    digest = hashlib.sha256()
    for name in ("model.safetensors", "tokenizer.json", "prompt.yaml"):
        path = directory / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; {_command_for(directory)}")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _command_for(directory: Path) -> str:
    """`runs/NAME/backbone` is what `experiments/NAME.yaml` makes."""
    experiment = Path("experiments") / f"{directory.parent.name}.yaml"
    if experiment.is_file():
        return f"make it with: lightning fit --config {experiment}"
    return "point init_from at a directory that `lightning fit` of a pre-training experiment has written"
