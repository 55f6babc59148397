"""How a profile is written as text: style, order and wording of its attributes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import Literal, TypedDict

from datamodules.evidence.language_file import load_language
from datamodules.prompts.profiles import Attributes


class Wording(TypedDict):
    """How one attribute and its values are written, as a language's YAML says it."""

    written: str
    values: dict[str, str]


@dataclass(frozen=True)
class PromptTemplate:
    """How a profile is written. All wording is ours; it is not stated in the paper.

    Args:
        style: `none`, `psp` (the speaker's profile), `ppp` (the speaker's and the partner's) or `user` (a number that
            stands for the speaker, who has to be a target user; anybody else has none).
        attribute_format: one attribute, with `{attribute}` and `{value}`.
        separator: what stands between two attributes.
        attributes: which attributes, in this order; None takes all, in alphabetical order.
        wording: how attributes and values are written: a language's YAML, such as `experiments/profiles/ja.yaml`.
            None writes them as the profiles name them.
    """

    style: Literal["none", "psp", "ppp", "user"] = "none"
    attribute_format: str = "{attribute}: {value}"
    separator: str = ", "
    attributes: tuple[str, ...] | None = None
    wording: Path | dict[str, Wording] | None = None

    def __post_init__(self) -> None:
        fields = {field for _, field, *_ in Formatter().parse(self.attribute_format) if field is not None}
        if "value" not in fields or fields - {"attribute", "value"}:
            raise ValueError(
                f"prompt.attribute_format {self.attribute_format!r} must have {{value}}, and may have {{attribute}}"
            )

    def resolved(self) -> PromptTemplate:
        """What a backbone keeps: the content of the language's YAML in the place of its path, and no wording at all
        where no profile is written."""
        if self.style == "none":
            return PromptTemplate()
        if not isinstance(self.wording, Path):
            return self
        written = {
            name: Wording(written=attribute.written, values=attribute.values)
            for name, attribute in load_language(self.wording).attributes.items()
            if self.attributes is None or name in self.attributes
        }
        return replace(self, wording=written)

    def render(self, profile: Attributes) -> str:
        """The profile as text; an attribute that is missing is left out, an empty profile is empty."""
        names = sorted(profile) if self.attributes is None else [name for name in self.attributes if name in profile]
        written = (self._written(name, profile[name]) for name in names)
        return self.separator.join(self.attribute_format.format(attribute=name, value=value) for name, value in written)

    def _written(self, attribute: str, value: str) -> tuple[str, str]:
        if self.wording is None:
            return attribute, value
        known = self.wording.get(attribute)
        if known is None or value not in known["values"]:
            names = sorted(self.wording if known is None else known["values"])
            raise ValueError(
                f"the prompt's wording has no {attribute}={value!r}, only {names}: add it to the language's YAML, or "
                "choose attributes with data.prompt.attributes"
            )
        return known["written"], known["values"][value]
