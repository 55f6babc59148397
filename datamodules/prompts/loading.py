"""The prompts of a prepared corpus, with the profiles of a file, or those the corpus declares, or numbers."""

from __future__ import annotations

from pathlib import Path

from artefacts.layout import MANIFEST, PROFILES, TOKENIZER, configs_of
from artefacts.manifest import read_manifest, user_numbers
from datamodules.preparation.tokenizer import load_tokenizer
from datamodules.prompts.profiles import ProfileControl, read_profiles
from datamodules.prompts.rendering import Prompts
from datamodules.prompts.template import PromptTemplate


def load_prompts(
    template: PromptTemplate, prepared: Path, profiles: Path | None, control: ProfileControl | None = None
) -> Prompts:
    """The prompts of a prepared corpus.

    Raises:
        FileNotFoundError: there are no profiles.
        ValueError: no user has an attribute that the template asks for, or the wording lacks a value.
    """
    tokenizer = load_tokenizer(prepared / TOKENIZER)
    template = template.resolved()
    control = control or ProfileControl()
    if template.style == "none":
        if control != ProfileControl():
            raise ValueError(f"data.control is {control}, but a prompt of style none has no profiles; use psp or ppp")
        return Prompts(template, tokenizer)
    known = control.apply(_known_profiles(template, prepared, profiles))
    for profile in known.values():
        template.render(profile)  # a value that cannot be written is reported now, not in the middle of training
    return Prompts(template, tokenizer, known)


def _known_profiles(template: PromptTemplate, prepared: Path, profiles: Path | None) -> dict[str, dict[str, str]]:
    """User → those attributes that the template asks for."""
    if template.style == "user":
        path, known = prepared / MANIFEST, numbered_users(prepared)
    else:
        path = profiles or prepared / PROFILES
        if not path.is_file():
            configs = configs_of(path.parent)  # of the run that is to predict them
            how = f"make it with: lightning fit {configs}, and then lightning predict {configs}"
            how = how if configs else "give data.profiles=<profiles.parquet>, or use the style none"
            raise FileNotFoundError(f"prompt style {template.style!r} needs profiles, and there is no {path}; {how}")
        known = read_profiles(path)
    if template.attributes is None:
        return known
    names = {name for profile in known.values() for name in profile}
    if missing := [name for name in template.attributes if name not in names]:
        raise ValueError(
            f"data.prompt.attributes: nobody has {missing} in {path}, which has {sorted(names)}; if the corpus did not "
            "declare it yet when it was prepared, delete that directory and prepare it anew"
        )
    return {
        user: {name: value for name, value in profile.items() if name in template.attributes}
        for user, profile in known.items()
    }


def numbered_users(prepared: Path) -> dict[str, dict[str, str]]:
    """A profile for each target user that is only their number, which is short for any name."""
    return {user: {"user": str(number)} for user, number in user_numbers(read_manifest(prepared)).items()}
