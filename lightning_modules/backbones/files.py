"""A backbone as a directory: a model with its tokenizer and prompt format, as Hugging Face's own classes load it.

config.json, generation_config.json, model.safetensors     Hugging Face
tokenizer.json, tokenizer_config.json                      Hugging Face
prompt.yaml                                                prompt style and wording, with an example
manifest.json                                              fingerprint; written last
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tokenizers import Tokenizer

from artefacts.files import read_json, replacing_directory, write_json
from artefacts.fingerprints import DIGITS, sha256_of_files
from artefacts.layout import MANIFEST, MODEL_WEIGHTS, PROMPT, TOKENIZER_CONFIG, TOKENIZER_FILE, configs_of
from datamodules.prompts.template import PromptTemplate
from lightning_modules.backbones.t5 import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    prompt: PromptTemplate
    fingerprint: str


def save_backbone(
    model: PreTrainedModel, tokenizer_directory: Path, prompt: PromptTemplate, directory: Path, **provenance: Any
) -> str:
    """Writes a backbone and returns its fingerprint.

    Raises:
        ValueError: the directory already holds another backbone.
    """
    with replacing_directory(directory) as partial:
        model.save_pretrained(partial)
        for name in (TOKENIZER_FILE, TOKENIZER_CONFIG):
            shutil.copyfile(tokenizer_directory / name, partial / name)
        profile = _example_profile(prompt)
        described = {**asdict(prompt), "example": {"profile": profile, "rendered": prompt.render(profile)}}
        (partial / PROMPT).write_text(yaml.safe_dump(described, allow_unicode=True, sort_keys=False), encoding="utf-8")
        fingerprint = _fingerprint(partial)
        write_json(partial / MANIFEST, {"fingerprint": fingerprint, **provenance})
        if (directory / MANIFEST).is_file():
            existing = manifest_of(directory)["fingerprint"]
            if existing != fingerprint:
                raise ValueError(f"{directory} holds another backbone ({existing}); this one is left in {partial}")
    return fingerprint


def manifest_of(directory: Path) -> dict[str, Any]:
    """The manifest of a backbone; FileNotFoundError names the command that makes one."""
    if not (directory / MANIFEST).is_file():
        raise FileNotFoundError(f"no backbone in {directory}; {_advice(directory)}")
    return read_json(directory / MANIFEST)


def load_backbone(directory: Path) -> Backbone:
    """Loads a backbone for training or generation, in fp32.

    Raises:
        FileNotFoundError: there is none; names the command that makes it.
        ValueError: its files are not those that its manifest describes.
    """
    manifest, fingerprint = manifest_of(directory), _fingerprint(directory)
    if fingerprint != manifest["fingerprint"]:
        raise ValueError(
            f"the files in {directory} have fingerprint {fingerprint}, its manifest says {manifest['fingerprint']}: "
            "they were changed or damaged; copy the backbone again or retrain it"
        )
    described = yaml.safe_load((directory / PROMPT).read_text(encoding="utf-8"))
    described.pop("example")
    if described["attributes"] is not None:
        described["attributes"] = tuple(described["attributes"])
    return Backbone(
        model=load_model(directory),
        tokenizer=Tokenizer.from_file(str(directory / TOKENIZER_FILE)),
        prompt=PromptTemplate(**described).resolved(),
        fingerprint=fingerprint,
    )


def _example_profile(prompt: PromptTemplate) -> dict[str, str]:
    """A profile that the prompt's wording can describe."""
    if prompt.style == "user":
        return {"user": "0"}
    if prompt.wording is None:
        return {"age": "20s", "residence": "Tokyo"}
    return {name: next(iter(attribute["values"])) for name, attribute in prompt.wording.items()}


def _fingerprint(directory: Path) -> str:
    paths = [directory / name for name in (MODEL_WEIGHTS, TOKENIZER_FILE, PROMPT)]
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{missing[0]} is missing; {_advice(directory)}")
    return sha256_of_files(paths)[:DIGITS]


def _advice(directory: Path) -> str:
    """How to get a backbone; `runs/NAME/backbone` is what `experiments/NAME.yaml` makes."""
    if configs := configs_of(directory.parent):
        return f"make it with: lightning fit {configs}"
    return "point init_from at a directory that `lightning fit` of a pre-training experiment has written"
