"""`ParrotCompletion`: plain text completions as LangChain's `BaseLLM`, for prompts without roles.

It knows LangChain's interface and the SDK's `completions`. Completions are not planned: the wire of plans is that of
chats. All prompts of one call go in one request, so the server sees them as one group; the session that the app has
named is told with it.

The invariant: what the app gets is what the server answered. Nothing is added, repaired or left out.
"""

from __future__ import annotations

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
from parrot_compat.integrations.labels import current_session_label
from parrot_compat.integrations.plans.asked import ALONE, Asked

from .connection import ParrotSampling
from .errors import sdk_errors
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
        return {"model_name": self.model_name, "base_url": self.base_url, **self._request_params()}

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
        request = self._create_arguments({"prompt": prompts}, stop, kwargs, stream=False)
        with sdk_errors(), _asked().sending(self._endpoint, request) as sent:
            answer = remote.client(self._endpoint).completions.create(**sent)
        return _result(cast("Completion", answer), len(prompts))

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if self.streaming and len(prompts) == 1:
            return _summed([chunk async for chunk in self._astream(prompts[0], stop, run_manager, **kwargs)])
        request = self._create_arguments({"prompt": prompts}, stop, kwargs, stream=False)
        with sdk_errors(), _asked().sending(self._endpoint, request) as sent:
            client = await remote.async_client(self._endpoint)
            answer = await client.completions.create(**sent)
        return _result(cast("Completion", answer), len(prompts))

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
