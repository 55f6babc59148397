"""A backbone as a directory: a model with its tokenizer and prompt format, as Hugging Face's own classes load it.

config.json, generation_config.json, model.safetensors     Hugging Face
tokenizer.json                                             the tokenizer of the shards; adds no end token
tokenizer.4.0.0.json, tokenizer_config.json                the same for AutoTokenizer, with the end token
prompt.yaml                                                prompt style and wording, with an example
manifest.json                                              fingerprint of weights, tokenizer and prompt, and SHA-256
                                                           of the other files; written last
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from artefacts.described import described, require_described
from artefacts.files import read_object, replacing_directory, write_json
from artefacts.fingerprints import DIGITS, sha256_of_files
from artefacts.layout import MANIFEST, MODEL_WEIGHTS, PROMPT, TOKENIZER_CONFIG, TOKENIZER_FILE, configs_of
from datamodules.prompts.template import PromptTemplate
from lightning_modules.backbones.t5 import load_model

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ENDING_TOKENIZER_FILE = "tokenizer.4.0.0.json"
"""What AutoTokenizer prefers to tokenizer.json, since that version of transformers (`fast_tokenizer_files`)."""
FINGERPRINTED = (MODEL_WEIGHTS, TOKENIZER_FILE, PROMPT)
MEND = "copy the backbone again or retrain it"


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
        _save_tokenizer(tokenizer_directory, partial)
        profile = _example_profile(prompt)
        settings = {**asdict(prompt), "example": {"profile": profile, "rendered": prompt.render(profile)}}
        (partial / PROMPT).write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False), encoding="utf-8")
        fingerprint = _fingerprint(partial)
        others = described(*(path for path in partial.iterdir() if path.name not in FINGERPRINTED))
        write_json(partial / MANIFEST, {"fingerprint": fingerprint, **provenance, **others})
        if (directory / MANIFEST).is_file():
            existing = manifest_of(directory)["fingerprint"]
            if existing != fingerprint:
                raise ValueError(f"{directory} holds another backbone ({existing}); this one is left in {partial}")
    return fingerprint


def manifest_of(directory: Path) -> dict[str, Any]:
    """The manifest of a backbone; FileNotFoundError names the command that makes one."""
    if not (directory / MANIFEST).is_file():
        raise FileNotFoundError(f"no backbone in {directory}; {_advice(directory)}")
    return read_object(directory / MANIFEST, "fingerprint", mend=MEND)


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
            f"they were changed or damaged; {MEND}"
        )
    require_described(directory / MANIFEST, MEND)
    settings = yaml.safe_load((directory / PROMPT).read_text(encoding="utf-8"))
    settings.pop("example")
    if settings["attributes"] is not None:
        settings["attributes"] = tuple(settings["attributes"])
    return Backbone(
        model=load_model(directory),
        tokenizer=Tokenizer.from_file(str(directory / TOKENIZER_FILE)),
        prompt=PromptTemplate(**settings).resolved(),
        fingerprint=fingerprint,
    )


def load_tensors(path: Path, mend: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; ValueError names a damaged one, and how to mend it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or missing ({error}); {mend}") from None


def _save_tokenizer(source: Path, directory: Path) -> None:
    """Copies the tokenizer of the shards, and writes for AutoTokenizer one that ends texts as training does."""
    shutil.copyfile(source / TOKENIZER_FILE, directory / TOKENIZER_FILE)
    tokenizer = Tokenizer.from_file(str(source / TOKENIZER_FILE))
    configuration = read_object(source / TOKENIZER_CONFIG, "eos_token")
    end = configuration["eos_token"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B:1 {end}:1", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    tokenizer.save(str(directory / ENDING_TOKENIZER_FILE))
    configuration["fast_tokenizer_files"] = [TOKENIZER_FILE, ENDING_TOKENIZER_FILE]
    write_json(directory / TOKENIZER_CONFIG, configuration, ensure_ascii=False)


def _example_profile(prompt: PromptTemplate) -> dict[str, str]:
    """A profile that the prompt's wording can describe."""
    if prompt.style == "user":
        return {"user": "0"}
    if prompt.wording is None:
        return {"age": "20s", "residence": "Tokyo"}
    return {name: next(iter(attribute["values"])) for name, attribute in prompt.wording.items()}


def _fingerprint(directory: Path) -> str:
    paths = [directory / name for name in FINGERPRINTED]
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{missing[0]} is missing; {_advice(directory)}")
    return sha256_of_files(paths)[:DIGITS]


def _advice(directory: Path) -> str:
    """How to get a backbone; `runs/NAME/backbone` is what `experiments/NAME.yaml` makes."""
    if configs := configs_of(directory.parent):
        return f"make it with: lightning fit {configs}"
    return "point init_from at a directory that `lightning fit` of a pre-training experiment has written"
