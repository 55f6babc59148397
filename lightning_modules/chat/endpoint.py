"""`ChatEndpoint`: a chat model behind an OpenAI-compatible endpoint, on this machine or, if allowed, elsewhere.

Every answer is cached on disk, so that a stopped run resumes without asking (and paying) again. Messages are neither
logged nor kept, nor is what a server says in its errors, because it may repeat them.
"""

from __future__ import annotations

import asyncio
import json
import os
from asyncio import sleep
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import torch

from artefacts.files import read_json, write_text
from artefacts.fingerprints import sha256_of_content
from artefacts.ranges import AT_LEAST_0, AT_LEAST_1, POSITIVE, require

from .models import ChatDecoding, ChatModel, Message

if TYPE_CHECKING:
    import openai


@dataclass(frozen=True)
class Answer:
    """One answer and the tokens it took, as cached on disk."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class ChatEndpoint(ChatModel):
    """Asks an endpoint, one request for each candidate, because many servers ignore `n`.

    Args:
        model: what the endpoint calls the model.
        base_url: of the API; it usually ends in `/v1`.
        api_key_variable: name of the environment variable with the key; a server on this machine needs none.
        allow_sending_text: an endpoint elsewhere gets what people wrote: their profiles, their conversations.
        concurrency: requests under way at the same time; never more than a batch has candidates.
        max_retries: further attempts where the server is busy, fails, cannot be reached or answers nothing. The waits
            of the `openai` client between them grow from half a second to eight.
        timeout: seconds that one attempt may take, from the request to the last byte of the answer.
        cache: directory of the answers that were given; it may serve several runs.
        price_per_million: of tokens of prompts and of completions, in any currency; None counts no cost.
        seed: of the first candidate, the second has the next one, and so on; None is the run's (`seed_everything`).
        request: further fields of a request, or other values of ours; null leaves a field out. A model that reasons
            may want `{max_tokens: null, max_completion_tokens: 2000, temperature: null, top_p: null}`.
    """

    not_in_run_name: ClassVar = (
        "api_key_variable",
        "allow_sending_text",
        "concurrency",
        "max_retries",
        "timeout",
        "cache",
        "price_per_million",
    )

    def __init__(
        self,
        model: str,
        base_url: str,
        api_key_variable: str = "OPENAI_API_KEY",
        allow_sending_text: bool = False,
        concurrency: int = 8,
        max_retries: int = 5,
        timeout: float = 120.0,
        cache: Path = Path("runs/.answers"),
        price_per_million: tuple[float, float] | None = None,
        seed: int | None = None,
        request: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.is_here = is_loopback(base_url)
        if not (self.is_here or allow_sending_text):
            raise ValueError(
                f"{base_url} is not on this machine, and prompts hold what people wrote in conversations and what is "
                "known of them. If they, and the terms of the corpus, allow that it is sent there, set "
                "model.chat_model.allow_sending_text=true"
            )
        if not self.is_here and urlsplit(base_url).scheme != "https":
            raise ValueError(f"{base_url} is not on this machine, and not encrypted; use https://")
        self.model = model
        self.base_url = base_url
        self.api_key_variable = api_key_variable
        self.concurrency = concurrency
        self.max_retries = max_retries
        self.timeout = timeout
        self.cache = cache
        self.price_per_million = price_per_million
        self.seed = seed or 0
        self.request = request or {}
        require(vars(self), concurrency=AT_LEAST_1, max_retries=AT_LEAST_0, timeout=POSITIVE, seed=AT_LEAST_0)
        self.name = f"{Path(model).name if Path(model).is_absolute() else model} at {urlsplit(base_url).netloc}"

    def open(self, device: torch.device) -> None:
        try:
            import openai  # noqa: F401
        except ModuleNotFoundError:
            raise ValueError("an endpoint is asked through the openai client: pip install -e '.[llm]'") from None
        if not os.environ.get(self.api_key_variable) and not self.is_here:
            raise ValueError(f"no key for {self.base_url}: set the environment variable {self.api_key_variable}")
        self.cache.mkdir(parents=True, exist_ok=True)

    def _client(self) -> openai.AsyncOpenAI:
        """A client for the requests of one batch."""
        import httpx
        import openai

        timeout = self.timeout

        class WithDeadline(openai.DefaultAsyncHttpxClient):
            """Ends an attempt after so many seconds; httpx itself waits as long for every single byte."""

            async def send(self, *arguments: Any, **options: Any) -> httpx.Response:
                try:
                    async with asyncio.timeout(timeout):
                        return await super().send(*arguments, **options)
                except TimeoutError:
                    raise httpx.ReadTimeout(f"no whole answer within {timeout:g} s") from None

        # What stays on this machine does not go through a proxy either, nor where a server points to.
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=os.environ.get(self.api_key_variable) or "none",
            max_retries=self.max_retries,
            timeout=timeout,
            http_client=WithDeadline(trust_env=False, follow_redirects=False) if self.is_here else WithDeadline(),
        )

    def replies(self, prompts: Sequence[Sequence[Message]], decoding: ChatDecoding) -> list[list[str]]:
        size = decoding.num_candidates
        bodies = [self._body(prompt, decoding, self.seed + number) for prompt in prompts for number in range(size)]
        # A key names the cached answer: the same only for the same question, settings, model and endpoint.
        keys = [sha256_of_content(json.dumps([self.base_url, body], sort_keys=True)) for body in bodies]
        distinct = dict(zip(keys, bodies, strict=True))  # nobody pays twice for the same question
        answers = asyncio.run(self._answers(distinct, size))
        for answer, is_cached in answers:
            self._count(answer, is_cached)
        texts = {key: answer.text for key, (answer, _) in zip(distinct, answers, strict=True)}
        return [[texts[key] for key in keys[start : start + size]] for start in range(0, len(keys), size)]

    async def _answers(self, bodies: dict[str, dict[str, Any]], next_seed: int) -> list[tuple[Answer, bool]]:
        """The answers, and whether they were cached; when one fails, the others are dropped."""
        turns = asyncio.Semaphore(self.concurrency)

        async def in_turn(client: openai.AsyncOpenAI, key: str) -> tuple[Answer, bool]:
            async with turns:
                return await self._answer(client, key, bodies[key], next_seed)

        try:
            async with self._client() as client, asyncio.TaskGroup() as group:
                tasks = [group.create_task(in_turn(client, key)) for key in bodies]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    def _body(self, prompt: Sequence[Message], decoding: ChatDecoding, seed: int) -> dict[str, Any]:
        fields = {
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "max_tokens": decoding.max_new_tokens,
            "seed": seed,
            **self.request,
        }
        fields = {name: value for name, value in fields.items() if value is not None}
        return {"model": self.model, "messages": list(prompt), **fields}

    async def _answer(
        self, client: openai.AsyncOpenAI, key: str, body: dict[str, Any], next_seed: int
    ) -> tuple[Answer, bool]:
        """The answer, and whether it was cached."""
        path = self.cache / key[:2] / f"{key}.json"
        with suppress(FileNotFoundError, ValueError, TypeError):  # an unreadable one is asked for again
            return Answer(**read_json(path)), True
        answer = await self._ask(client, body, next_seed)
        write_text(path, json.dumps(asdict(answer), ensure_ascii=False), shared=True)
        return answer, False

    async def _ask(self, client: openai.AsyncOpenAI, body: dict[str, Any], next_seed: int) -> Answer:
        """Asks until the answer is not empty; each time later, and with a seed that no other candidate has."""
        prompt_tokens = completion_tokens = 0
        for attempt in range(self.max_retries + 1):
            if attempt:
                await sleep(min(8.0, 0.5 * 2 ** (attempt - 1)))  # s, as the client waits for a busy server
            answer, finish_reason = await self._complete(client, body)
            prompt_tokens += answer.prompt_tokens
            completion_tokens += answer.completion_tokens
            if answer.text:
                return Answer(answer.text, prompt_tokens, completion_tokens)
            body = {**body, "seed": body["seed"] + next_seed} if "seed" in body else body
        raise ValueError(
            f"{self.name} gave an empty answer {self.max_retries + 1} times (finish_reason {finish_reason!r}). "
            "With 'length', a model that reasons has used up model.decoding.max_new_tokens; with 'content_filter' it "
            "refuses; otherwise look at the server's log. Answers so far are cached: the same command resumes"
        )

    async def _complete(self, client: openai.AsyncOpenAI, body: dict[str, Any]) -> tuple[Answer, str]:
        """One request, with the client's own retries, and why its answer ended; errors quote nobody."""
        import openai

        try:
            return _read(
                await client.chat.completions.create(model=self.model, messages=body["messages"], extra_body=body)
            )
        except openai.APIConnectionError as error:  # a timeout is one
            raise ValueError(
                f"no answer from {self.base_url} after {self.max_retries + 1} attempts ({type(error).__name__}): is "
                "the server running, is model.chat_model.base_url right, is model.chat_model.timeout long enough?"
            ) from None
        except openai.APIStatusError as error:
            raise ValueError(
                f"{self.base_url} answered with status {error.status_code}: {self._advice(error.status_code)} "
                "(OPENAI_LOG=debug shows all that is sent and answered)"
            ) from None
        except (ValueError, TypeError, AttributeError, LookupError):  # no JSON, or other JSON: nothing checks its types
            raise ValueError(
                f"{self.base_url} is no OpenAI-compatible API; model.chat_model.base_url usually ends in /v1"
            ) from None

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            return f"it refuses the key in {self.api_key_variable}"
        if status == 404 or status < 400:
            return f"it has no model {self.model!r}, or base_url is not its API's, which usually ends in /v1"
        if status == 429:
            return "too many requests, or no credit; lower model.chat_model.concurrency, or raise max_retries"
        if status < 500:
            return (
                "it does not take the request: look at model.chat_model.model and .request; the prompt may also be too "
                "long (model.num_examples)"
            )
        return f"it failed {self.max_retries + 1} times; look at the server's log"

    def _count(self, answer: Answer, is_cached: bool) -> None:
        usage = self.usage
        usage.answers += 1
        usage.from_cache += is_cached
        usage.prompt_tokens += answer.prompt_tokens
        usage.completion_tokens += answer.completion_tokens
        if self.price_per_million is not None:
            of_prompt, of_completion = self.price_per_million
            cost = (answer.prompt_tokens * of_prompt + answer.completion_tokens * of_completion) / 1e6
            usage.cost = (usage.cost or 0.0) + cost
            usage.paid = (usage.paid or 0.0) + (0.0 if is_cached else cost)


def _read(completion: Any) -> tuple[Answer, str]:
    """The first answer in a completion, whose types nobody has checked, and why it ended."""
    choice, usage = completion.choices[0], completion.usage
    text = choice.message.content or ""
    if not isinstance(text, str):
        raise TypeError(f"the content is {type(text).__name__}")
    used = [int(getattr(usage, name, None) or 0) for name in ("prompt_tokens", "completion_tokens")]
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate can be in JSON, but not in a file
    return Answer(text.strip(), *used), str(choice.finish_reason)


def is_loopback(base_url: str) -> bool:
    """Whether a URL is of this very machine; ValueError where it is no URL of an API."""
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"model.chat_model.base_url {base_url!r} is not like http://127.0.0.1:8000/v1")
    try:
        return ip_address(url.hostname).is_loopback
    except ValueError:
        return url.hostname == "localhost"
