"""Models that answer chat messages: the interface, and a causal model in a local directory."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from artefacts.ranges import AT_LEAST_0, AT_LEAST_1, POSITIVE_SHARE, require

Message = dict[str, str]
"""`role` and `content`."""


@dataclass(frozen=True)
class ChatDecoding:
    """How a chat model is asked to answer; only what every endpoint understands. Not stated in the paper.

    Args:
        num_candidates: answers to one prompt.
        temperature: of the distribution that is sampled from; 0 takes the most likely tokens.
        top_p: sample from the most likely tokens that have this probability together.
        max_new_tokens: longest answer, in the model's tokens.
    """

    num_candidates: int = 1
    temperature: float = 1.0
    top_p: float = 0.9
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        require(
            vars(self),
            num_candidates=AT_LEAST_1,
            temperature=AT_LEAST_0,
            top_p=POSITIVE_SHARE,
            max_new_tokens=AT_LEAST_1,
        )
        if self.temperature == 0 and self.num_candidates > 1:
            raise ValueError(f"{self.num_candidates} candidates at temperature 0 would all be the same; raise it")


@dataclass
class Usage:
    """What the answers took. Answers from the cache count in everything but `paid`."""

    answers: int = 0
    from_cache: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None  # None: no prices are known
    paid: float | None = None


class ChatModel(ABC):
    """Answers prompts. `name` is what a predictions card calls it."""

    name: str

    def __init__(self) -> None:
        self.usage = Usage()

    @abstractmethod
    def open(self, device: torch.device) -> None:
        """Called once before the first prompt, and not when the model is only configured.

        Raises:
            ValueError: something that it needs is not there.
        """

    @abstractmethod
    def replies(self, prompts: Sequence[Sequence[Message]], decoding: ChatDecoding) -> list[list[str]]:
        """`num_candidates` answers to each prompt."""


class LocalChatModel(ChatModel):
    """A causal language model in a directory, as `save_pretrained` writes it, or one GGUF file; nothing is downloaded.

    Messages go through the chat template of its tokenizer; a model without one continues their plain text. The seed
    is the run's (`seed_everything`). An empty answer is this model's answer, and stays. What is quantized in a GGUF
    file is no longer so when it is read.

    Args:
        directory: model and tokenizer; or where one `.gguf` file is, which has both.
        dtype: of the weights; `auto` is as they were saved.
        rows_at_once: most prompts in memory at the same time.
        template_options: what else the chat template takes, for example `{enable_thinking: false}`.
    """

    not_in_run_name: ClassVar = ("rows_at_once",)

    def __init__(
        self,
        directory: Path,
        dtype: str = "auto",
        rows_at_once: int = 8,
        template_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.directory = directory
        self.dtype = dtype
        self.rows_at_once = rows_at_once
        self.template_options = template_options or {}
        self.name = directory.name

    def open(self, device: torch.device) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options = {"local_files_only": True, **self._file()}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(self.directory, padding_side="left", **options)
            model = AutoModelForCausalLM.from_pretrained(self.directory, dtype=self.dtype, **options)
        except ImportError as error:  # of gguf
            raise ValueError(f"{self.directory}: {error}") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.directory} is not a causal model with a tokenizer: {error}") from error
        self.model = model.to(device).eval()
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        added = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        longest_first = sorted(map(re.escape, added | set(self.tokenizer.all_special_tokens)), key=len, reverse=True)
        self._special = re.compile("|".join(longest_first) or r"(?!)")

    def _file(self) -> dict[str, str]:
        """Which GGUF file the model is, if it is one."""
        if (self.directory / "config.json").is_file():
            return {}
        files = sorted(file.name for file in self.directory.glob("*.gguf"))
        if len(files) != 1:
            raise FileNotFoundError(
                f"no language model in {self.directory} (no config.json, and {len(files)} GGUF files, not one): give "
                "the directory of one, with its tokenizer, as model.chat_model.directory"
            )
        self.name = files[0].removesuffix(".gguf")
        return {"gguf_file": files[0]}

    def replies(self, prompts: Sequence[Sequence[Message]], decoding: ChatDecoding) -> list[list[str]]:
        texts = [self._text(prompt) for prompt in prompts]
        answers = []
        for start in range(0, len(texts), self.rows_at_once):
            answers += self._generate(texts[start : start + self.rows_at_once], decoding)
        return answers

    def _typed(self, text: str) -> str:
        """The text with a blank in each special token that a person has typed, so that it stays text."""
        return self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)

    def _text(self, prompt: Sequence[Message]) -> str:
        prompt = [{**message, "content": self._typed(message["content"])} for message in prompt]
        if self.tokenizer.chat_template is None:
            return "\n\n".join(message["content"] for message in prompt)
        return self.tokenizer.apply_chat_template(
            prompt, tokenize=False, add_generation_prompt=True, **self.template_options
        )

    @torch.no_grad()
    def _generate(self, texts: Sequence[str], decoding: ChatDecoding) -> list[list[str]]:
        plain = self.tokenizer.chat_template is None  # a template has written the special tokens itself
        inputs = self.tokenizer(list(texts), return_tensors="pt", padding=True, add_special_tokens=plain)
        width = inputs["input_ids"].shape[1]
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest and width + decoding.max_new_tokens > longest:
            raise ValueError(
                f"a prompt of {width} tokens and {decoding.max_new_tokens} for the answer are more than the {longest} "
                f"that {self.name} takes; lower model.num_examples or model.decoding.max_new_tokens"
            )
        sampling = {"top_p": decoding.top_p, "temperature": decoding.temperature, "top_k": 0}
        sequences = self.model.generate(
            input_ids=inputs["input_ids"].to(self.model.device),
            attention_mask=inputs["attention_mask"].to(self.model.device),
            do_sample=decoding.temperature > 0,
            num_return_sequences=decoding.num_candidates,
            max_new_tokens=decoding.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            **(sampling if decoding.temperature > 0 else {}),
        )
        new = sequences[:, width:]  # (prompts * candidates, length)
        self.usage.answers += len(new)
        self.usage.prompt_tokens += int(inputs["attention_mask"].sum())
        self.usage.completion_tokens += int((new != self.tokenizer.pad_token_id).sum())
        answers = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        size = decoding.num_candidates
        return [answers[start : start + size] for start in range(0, len(answers), size)]
