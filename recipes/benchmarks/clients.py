"""What an app is given of a lane: its LangChain model or its OpenAI SDK, and a log of every call that they make.

An app is written once; only the class of the model and the base URL differ between lanes (`Endpoint`). It knows
nothing of servers or of workloads.

The invariant: the log sees what the app sees: the rendered messages it asked with, the text it got, and the times at
which both passed. Nothing of it is taken from a server's word but token counts.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from openai import AsyncOpenAI, omit

from .recordings import Line, Replay

__all__ = ["TIMEOUT_S", "CallRecord", "Client", "Endpoint", "fingerprint", "sdk"]

Message = Mapping[str, str]
ROLES = {"human": "user", "ai": "assistant", "system": "system"}
TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A lane as its apps see it."""

    base_url: str
    model: str
    chat_class: Literal["openai", "parrot"] = "openai"
    """`ChatOpenAI` of langchain-openai and `OpenAILike` of LlamaIndex, or our `ChatParrot` and `ParrotLLM`."""
    metrics_url: str | None = None
    """Where its server counts its own work; without the distance."""


@dataclass(slots=True, kw_only=True)
class CallRecord:
    """One LLM call. Times are seconds of `time.perf_counter`."""

    name: str
    prompt: str
    """Hash of the rendered messages: the same in two lanes where they asked the same."""
    max_tokens: int = 0
    submitted: float = 0.0
    first: float | None = None
    finished: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    text: str = ""
    error: str = ""


@dataclass(slots=True)
class Client:
    """One app's own: made for it, used by it alone. `waited_s` is the time that its tools took, not the model."""

    endpoint: Endpoint
    calls: list[CallRecord] = field(default_factory=list)
    replay: Replay | None = None
    """What the calls are to say, where answers are recorded."""
    first_text: float | None = None
    """When the first of the text that the app's user waits for was there."""
    waited_s: float = 0.0

    @property
    def config(self) -> RunnableConfig:
        return {"callbacks": [_Log(self.calls)]}

    def chat(self, max_tokens: int, *, name: str, streamed: bool = False) -> Runnable[Any, Any]:
        """The LangChain model. What nobody reads while it comes is not streamed."""
        line = self._line(name, max_tokens)
        return _chat_model(self.endpoint, line.tokens, streamed, line.seed).with_config(run_name=name)

    async def read(self, pieces: AsyncIterator[str]) -> str:
        """The awaited text of the app, read as its user would."""
        text: list[str] = []
        async for piece in pieces:
            if piece and self.first_text is None:
                self.first_text = time.perf_counter()
            text.append(piece)
        return "".join(text)

    async def ask(self, messages: Sequence[Message], max_tokens: int, *, name: str, awaited: bool = False) -> str:
        """One chat call through OpenAI's SDK; `awaited` text is streamed."""
        line = self._line(name, max_tokens)
        record = CallRecord(name=name, prompt=fingerprint(messages), max_tokens=line.tokens)
        self.calls.append(record)
        request: dict[str, Any] = {"model": self.endpoint.model, "messages": list(messages), "temperature": 0}
        request |= {"max_tokens": line.tokens, "seed": line.seed or omit, "extra_body": {"ignore_eos": True}}
        create = sdk(self.endpoint.base_url).chat.completions.create
        record.submitted = time.perf_counter()
        try:
            if awaited:
                usage = await self._ask_streaming(create, request, record)
            else:
                answer = await create(**request)
                record.text, usage = answer.choices[0].message.content or "", answer.usage
        except Exception as error:
            record.error = f"{type(error).__name__}: {error}"
            raise
        record.finished = time.perf_counter()
        if usage is not None:
            details = usage.prompt_tokens_details
            record.prompt_tokens, record.output_tokens = usage.prompt_tokens, usage.completion_tokens
            record.cached_tokens = (details and details.cached_tokens) or 0
        return record.text

    def _line(self, name: str, max_tokens: int) -> Line:
        return Line(0, max_tokens) if self.replay is None else self.replay.line(name, max_tokens)

    async def _ask_streaming(self, create: Any, request: dict[str, Any], record: CallRecord) -> Any:
        usage = None
        pieces: list[str] = []
        async with await create(**request, stream=True, stream_options={"include_usage": True}) as stream:
            async for chunk in stream:
                usage = chunk.usage or usage
                piece = chunk.choices[0].delta.content if chunk.choices else None
                if piece:
                    record.first = record.first or time.perf_counter()
                    pieces.append(piece)
        self.first_text = self.first_text or record.first
        record.text = "".join(pieces)
        return usage


def fingerprint(messages: Sequence[Message]) -> str:
    plain = json.dumps([[message["role"], message["content"]] for message in messages], separators=(",", ":"))
    return hashlib.sha256(plain.encode("utf-8", "replace")).hexdigest()[:16]


@cache
def sdk(base_url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=TIMEOUT_S)


@cache
def _chat_model(endpoint: Endpoint, max_tokens: int, streamed: bool, seed: int) -> BaseChatModel:
    """A seed of 0 is none."""
    settings: dict[str, Any] = {
        "base_url": endpoint.base_url,
        "model": endpoint.model,
        "api_key": "none",
        "temperature": 0,
        "max_tokens": max_tokens,
        "max_retries": 0,
        "timeout": TIMEOUT_S,
        "extra_body": {"ignore_eos": True},
        "stream_usage": True,
        "disable_streaming": not streamed,
        "seed": seed or None,
    }
    if endpoint.chat_class == "parrot":
        from parrot_compat.integrations.langchain import ChatParrot

        return ChatParrot(**settings)
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(**settings)


class _Log(AsyncCallbackHandler):
    """LangChain's word on every call of one app, in the app's own loop."""

    run_inline = True

    def __init__(self, calls: list[CallRecord]) -> None:
        self._calls = calls
        self._running: dict[UUID, CallRecord] = {}

    async def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        plain = [{"role": ROLES[message.type], "content": str(message.text)} for message in messages[0]]
        limit = kwargs.get("invocation_params", {})
        most = limit.get("max_completion_tokens") or limit.get("max_tokens") or 0
        record = CallRecord(name=name or "call", prompt=fingerprint(plain), max_tokens=most)
        self._calls.append(record)
        self._running[run_id] = record
        record.submitted = time.perf_counter()

    async def on_llm_new_token(self, token: str | list[Any], *, run_id: UUID, **kwargs: Any) -> None:
        record = self._running[run_id]
        if token and record.first is None:
            record.first = time.perf_counter()

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        record = self._running.pop(run_id)
        record.finished = time.perf_counter()
        generation = response.generations[0][0]
        record.text = generation.text
        if isinstance(generation, ChatGeneration):
            usage = getattr(generation.message, "usage_metadata", None) or {}
            record.prompt_tokens = usage.get("input_tokens", 0)
            record.output_tokens = usage.get("output_tokens", 0)
            record.cached_tokens = (usage.get("input_token_details") or {}).get("cache_read") or 0

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._running.pop(run_id).error = f"{type(error).__name__}: {error}"
