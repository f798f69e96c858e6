"""`ParrotCompletion`: plain text completions as LangChain's `BaseLLM`, for prompts without roles.

It knows LangChain's interface and the SDK's `completions`. Completions are not planned: the wire of plans is that of
chats. All prompts of one call go in one request, so the server sees them as one group (in several at once where there
are more than a request may have); the session that the app has named is told with it.

The invariant: what the app gets is what the server answered. Nothing is added, repaired or left out.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, cast

import openai
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM
from langchain_core.language_models.base import LangSmithParams
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from openai.types import Completion, CompletionChoice
from pydantic import model_validator

from parrot_compat import __version__
from parrot_compat.integrations import remote
from parrot_compat.integrations.chunks import chunks
from parrot_compat.integrations.labels import current_session_label
from parrot_compat.integrations.plans.asked import ALONE, Asked

from .connection import ParrotSampling
from .errors import sdk_errors
from .groups import run_together
from .wire import MODEL_PROVIDER

__all__ = ["ParrotCompletion"]

AS_MANY_AS_FIT = -1
ENDLESS = 2**31 - 1
"""More than any context holds: our server draws what fits. Others may refuse it by name."""


class ParrotCompletion(ParrotSampling, BaseLLM):
    """Takes the place of LangChain's `OpenAI`: same arguments, same methods, another server.

    ```python
    llm = ParrotCompletion(base_url="http://127.0.0.1:8000/v1", max_tokens=32, temperature=0)
    llm.batch(["Parrots repeat", "Servers answer"])
    ```
    """

    max_tokens: int = 256
    """-1: as many as fit into the model's context."""
    streaming: bool = False
    """`invoke` streams inside, so that callbacks hear every piece."""

    @model_validator(mode="after")
    def _set_parrot_version(self) -> Self:
        self._add_version("parrot-compat", __version__)
        return self

    @property
    def _llm_type(self) -> str:
        return "parrot-completion"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that decides an answer, and nothing else: LangChain's cache keys are made of it."""
        return self._deciding_params()

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = MODEL_PROVIDER
        return params

    def _create_arguments(
        self, content: Mapping[str, Any], stop: list[str] | None, kwargs: Mapping[str, Any], *, stream: bool
    ) -> dict[str, Any]:
        request = super()._create_arguments(content, stop, kwargs, stream=stream)
        if request["extra_body"].get("max_tokens") == AS_MANY_AS_FIT:
            request["extra_body"]["max_tokens"] = ENDLESS
        return request

    # ---- whole answers -----------------------------------------------------------------------------------

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if self.streaming and len(prompts) == 1:
            return _summed(list(self._stream(prompts[0], stop, run_manager, **kwargs)))
        requests = self._requests(prompts, stop, kwargs)

        def ask(index: int) -> LLMResult:
            with sdk_errors(), _asked().sending(self._endpoint, requests[index]) as sent:
                answer = remote.client(self._endpoint).completions.create(**sent)
            return _result(cast("Completion", answer), len(requests[index]["prompt"]))

        return _joined(run_together(len(requests), ask) if len(requests) > 1 else [ask(0)])

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if self.streaming and len(prompts) == 1:
            return _summed([chunk async for chunk in self._astream(prompts[0], stop, run_manager, **kwargs)])

        async def ask(request: Mapping[str, Any]) -> LLMResult:
            with sdk_errors(), _asked().sending(self._endpoint, request) as sent:
                client = await remote.async_client(self._endpoint)
                answer = await client.completions.create(**sent)
            return _result(cast("Completion", answer), len(request["prompt"]))

        asking = [asyncio.create_task(ask(request)) for request in self._requests(prompts, stop, kwargs)]
        try:
            return _joined(await asyncio.gather(*asking))
        finally:  # the first failure is the app's; what it makes needless is not asked any more
            for one in asking:
                one.cancel()

    def _requests(self, prompts: list[str], stop: list[str] | None, kwargs: dict[str, Any]) -> list[dict[str, Any]]:
        """One, unless it would be too long for a server."""
        request = self._create_arguments({"prompt": prompts}, stop, kwargs, stream=False)
        asked = [request["extra_body"].get(name) for name in ("n", "best_of")]
        drawn = max([1, *(many for many in asked if isinstance(many, int))])
        return [{**request, "prompt": some} for some in chunks(prompts, drawn)]

    # ---- pieces ------------------------------------------------------------------------------------------

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        request = self._create_arguments({"prompt": prompt}, stop, kwargs, stream=True)
        with sdk_errors(), _asked().sending(self._endpoint, request) as sent:
            opened = remote.client(self._endpoint).completions.create(**sent)
            # Leaving the block closes the connection, and the server stops the work.
            with cast("openai.Stream[Completion]", opened) as events:
                for event in events:
                    chunk = _chunk(event)
                    if run_manager:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        request = self._create_arguments({"prompt": prompt}, stop, kwargs, stream=True)
        with sdk_errors(), _asked().sending(self._endpoint, request) as sent:
            client = await remote.async_client(self._endpoint)
            opened = cast("openai.AsyncStream[Completion]", await client.completions.create(**sent))
            async with opened, aclosing(cast("Any", aiter(opened))) as events:
                async for event in events:
                    chunk = _chunk(event)
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    # ---- tokens ------------------------------------------------------------------------------------------

    def get_token_ids(self, text: str) -> list[int]:
        """The served model's own ids, from the server's `/tokenize`."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        with sdk_errors():
            return remote.token_ids(self._endpoint, self.model_name, text)


def _asked() -> Asked:
    label = current_session_label()
    return ALONE if label is None else Asked(hints=lambda: {"session": label})


def _result(answer: Completion, prompts: int) -> LLMResult:
    """The choices of each prompt stand together, in the order of the prompts."""
    choices = sorted(answer.choices, key=lambda choice: choice.index)
    each = len(choices) // prompts
    generations = [
        [Generation(text=choice.text, generation_info=_info(choice)) for choice in choices[start : start + each]]
        for start in range(0, prompts * each, each or 1)
    ]
    usage = answer.usage.model_dump(exclude_none=True) if answer.usage else None
    output = {"token_usage": usage, "model_name": answer.model, "id": answer.id}
    return LLMResult(generations=cast("Any", generations), llm_output=output)


def _joined(results: Sequence[LLMResult]) -> LLMResult:
    """Of several requests, as if they had been one."""
    first = results[0]
    if len(results) == 1:
        return first
    usages = [(result.llm_output or {})["token_usage"] for result in results]
    output = {**(first.llm_output or {}), "token_usage": functools.reduce(_sum, usages)}
    return LLMResult(generations=[some for result in results for some in result.generations], llm_output=output)


def _sum(one: Any, other: Any) -> Any:
    """Of usages, name by name."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {name: _sum(one.get(name), other.get(name)) for name in {**one, **other}}
    return one + other if isinstance(one, int) and isinstance(other, int) else one if other is None else other


def _chunk(event: Completion) -> GenerationChunk:
    """Usage comes on an event without choices."""
    info: dict[str, Any] = {}
    text = ""
    for choice in event.choices:
        text += choice.text or ""
        info |= {name: value for name, value in _info(choice).items() if value is not None}
    if event.usage:
        info["token_usage"] = event.usage.model_dump(exclude_none=True)
    return GenerationChunk(text=text, generation_info=info or None)


def _info(choice: CompletionChoice) -> dict[str, Any]:
    return {
        "finish_reason": choice.finish_reason,
        "logprobs": choice.logprobs.model_dump() if choice.logprobs else None,
    }


def _summed(chunks: Sequence[GenerationChunk]) -> LLMResult:
    whole = GenerationChunk(text="")
    for chunk in chunks:
        whole += chunk
    info = dict(whole.generation_info or {})
    usage = info.pop("token_usage", None)
    return LLMResult(
        generations=[[Generation(text=whole.text, generation_info=info or None)]], llm_output={"token_usage": usage}
    )
