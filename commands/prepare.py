"""`lightning prepare`: the preparation of a corpus, and a look at what a model will see of it."""

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from artefacts.manifest import num_pairs, read_manifest
from datamodules.preparation.run import prepare
from datamodules.preparation.settings import Preparation
from datamodules.prompts.loading import load_prompts
from datamodules.prompts.rendering import Prompts
from datamodules.prompts.template import PromptTemplate
from datamodules.shards.reader import ShardReader

SPLITS = ("pretrain/train", "users/train")


class PrepareAndPreview:
    """Turns a corpus into token shards, once; a second run reuses them.

    Args:
        preview: number of reply pairs to print as a model will see them: prompt, context and response as text with all
            markers, and their ids. The corpus is prepared first if it is not. They are the first of pretrain/train, or
            of users/train if all people are target users.
        prompt: of the preview alone: none, psp or ppp, and its wording.
        profiles: of the preview alone: a `profiles.parquet`; None uses the one of the prepared corpus, if there is one.
        max_context_tokens: of the preview alone: ids of context kept, from the end.
        settings: as in `Preparation`.
    """

    def __init__(
        self,
        preview: int = 0,
        prompt: PromptTemplate | None = None,
        profiles: Path | None = None,
        max_context_tokens: int = 64,
        **settings: Any,
    ) -> None:
        if preview < 0:
            raise ValueError(f"preview must be 0 or more reply pairs, got {preview}")
        self.num_previewed = preview
        self.prompt = prompt or PromptTemplate()
        self.profiles = profiles
        self.max_context_tokens = max_context_tokens
        self.preparation = Preparation(**settings)

    def run(self) -> None:
        """Prepares the corpus unless that is done, and prints the preview."""
        prepare(self.preparation)
        if self.num_previewed:
            prompts = load_prompts(self.prompt, self.preparation.output, self.profiles)
            for line in preview(self.preparation.output, self.num_previewed, prompts, self.max_context_tokens):
                print(line)


def preview(directory: Path, number: int, prompts: Prompts, max_context_tokens: int) -> Iterator[str]:
    """Yields the lines that show the first reply pairs of a prepared corpus; ValueError if it has none."""
    manifest = read_manifest(directory)
    split = next((name for name in SPLITS if name in manifest["splits"] and num_pairs(manifest, name)), None)
    if split is None:
        raise ValueError(f"nothing to preview: {directory} has no reply pair in {' or '.join(SPLITS)}")
    reader = ShardReader(directory, split)
    num_before = [0, *accumulate(reader.group_sizes)]
    groups = [group for group in range(len(reader.groups)) if num_before[group] < number]
    rendered = prompts.render(reader.read(groups), max_context_tokens)
    for row in range(min(number, len(rendered.pair_id))):
        inputs, targets = rendered.inputs.row(row), rendered.targets.row(row)
        prompt, context = np.split(inputs, [rendered.prefix_lengths[row]])
        yield f"pair {rendered.pair_id[row]}, row {row + 1} of {split}"
        for name, ids in (("prompt", prompt), ("context", context), ("response", targets)):
            yield f"  {name + ':':<10}{_text(prompts, ids)}"
        for name, ids in (("input ids", inputs), ("label ids", targets)):
            yield f"  {name}: {' '.join(map(str, ids))}"


def _text(prompts: Prompts, ids: np.ndarray) -> str:
    return prompts.tokenizer.decode(ids.tolist(), skip_special_tokens=False) if len(ids) else "(none)"
