"""`lightning prepare`: prepares a corpus, and shows pairs of it as a model will see them.

In: the settings of a preparation, and how many pairs to show. Out: what `Preparation` writes, and text on the screen.
Not its job: to choose pairs by what is in them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datamodules.preparation.manifest import num_pairs
from datamodules.preparation.prepare import Preparation
from datamodules.preparation.tokenizer import load_tokenizer
from datamodules.prompts import PromptTemplate, load_prompts
from datamodules.token_pairs import ShardReader


@dataclass
class PrepareAndPreview(Preparation):
    """Turns a corpus into token shards, once; a second run finds the work done and says so.

    Args:
        preview: shows so many pairs, the first ones of the first split that has any. To look at a corpus that takes
            long, prepare a part of it into another output.
        prompt: what stands in front of a pair; style psp or ppp to see profiles.
        max_context_tokens: ids of context kept, as of `ReplyPairs`.
    """

    preview: int = 0
    prompt: PromptTemplate = field(default_factory=PromptTemplate)
    max_context_tokens: int = 64

    def run(self) -> dict[str, Any]:
        manifest = super().run()
        if self.preview:
            print(self.previewed(manifest))
        return manifest

    def previewed(self, manifest: dict[str, Any]) -> str:
        """The pairs as text: who answers whom, what the encoder reads, what the decoder learns, and the ids of both.

        Raises:
            ValueError: there is no pair, or nobody has what the prompt asks for.
        """
        split = next((split for split in manifest["splits"] if num_pairs(manifest, split)), None)
        if split is None:
            raise ValueError(f"{self.output} has no pairs to show")
        tokenizer = load_tokenizer(self.output / "tokenizer")
        prompts = load_prompts(self.prompt, self.output, None)
        reader = ShardReader(self.output, split)
        pairs = reader.read([0])
        rendered = prompts.render(pairs, self.max_context_tokens)
        lines = []
        for row in range(min(self.preview, len(pairs))):
            inputs, labels = rendered.inputs.row(row).tolist(), rendered.targets.row(row).tolist()
            speaker, partner = pairs.speakers[pairs.speaker[row]], pairs.partners[pairs.partner[row]]
            lines += [
                f"{split}, pair {rendered.pair_id[row]}: {speaker} answers {partner}",
                f"  input     {tokenizer.decode(inputs, skip_special_tokens=False)}",
                f"  response  {tokenizer.decode(labels, skip_special_tokens=False)}",
                f"  input ids     {inputs}",
                f"  response ids  {labels}",
            ]
        return "\n".join(lines)
