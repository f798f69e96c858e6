"""`ChatParrot`: the LangChain chat model of a parrot_compat server, or of any OpenAI-compatible one.

It knows LangChain's interface. Its settings are in `settings`, messages are translated in `wire`, tools and
schemas in `structured`, errors in `errors`; requests go through `integrations.plans.calls`, where a call that the
`planner` has sent ahead is answered by what came of it.

The invariant: what the app gets is what the server answered. Nothing is added, repaired or left out.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun, Callbacks
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import BaseModel

from parrot_compat.integrations import remote
from parrot_compat.integrations.plans import calls

from .errors import ParrotBadRequestError, sdk_errors
from .groups import run_together, whole_batch
from .planner import planner
from .provenance import grouped
from .settings import ParrotSettings
from .structured import (
    Method,
    Schema,
    Tool,
    structured_format,
    structured_parser,
    tool_arguments,
    wire_format,
    with_raw,
)
from .tool_calls import StreamedCalls, settled
from .wire import chat_chunk, chat_result, request_messages, sum_usage

__all__ = ["ChatParrot"]


class ChatParrot(ParrotSettings):
    """Takes the place of `ChatOpenAI`: same arguments, same methods, another server.

    ```python
    llm = ChatParrot(base_url="http://127.0.0.1:8000/v1", temperature=0)
    (ChatPromptTemplate.from_template("Summarise: {text}") | llm | StrOutputParser()).batch(chapters)
    ```
    """

    # ---- one call --------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        asked = planner.asked(self._endpoint, request, run_manager)
        with sdk_errors():
            return chat_result(calls.complete(self._endpoint, request, asked))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        asked = planner.asked(self._endpoint, request, run_manager)
        with sdk_errors():
            return chat_result(await calls.acomplete(self._endpoint, request, asked))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs, stream=True)
        asked = planner.asked(self._endpoint, request, run_manager)
        heard = StreamedCalls()
        # Leaving the block closes the connection, and the server stops the work.
        with sdk_errors(), closing(calls.stream(self._endpoint, request, asked)) as events:
            for event in events:
                if (chunk := chat_chunk(event)) is None:
                    continue
                heard.hear(chunk)
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs, stream=True)
        asked = planner.asked(self._endpoint, request, run_manager)
        heard = StreamedCalls()
        with sdk_errors():
            async with aclosing(calls.astream(self._endpoint, request, asked)) as events:
                async for event in events:
                    if (chunk := chat_chunk(event)) is None:
                        continue
                    heard.hear(chunk)
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _generate_with_cache(self, *args: Any, **kwargs: Any) -> ChatResult:
        """Where LangChain puts the message of `invoke` together, from a stream if somebody listens to the run."""
        return settled(super()._generate_with_cache(*args, **kwargs))

    async def _agenerate_with_cache(self, *args: Any, **kwargs: Any) -> ChatResult:
        return settled(await super()._agenerate_with_cache(*args, **kwargs))

    def _should_stream(self, **kwargs: Any) -> bool:
        """Several answers are not streamed because somebody listens to the run: only where the app says so, and is told
        that this cannot be."""
        return self._may_stream(kwargs) and super()._should_stream(**kwargs)

    def _should_use_protocol_streaming(self, **kwargs: Any) -> bool:
        return self._may_stream(kwargs) and super()._should_use_protocol_streaming(**kwargs)

    def _may_stream(self, kwargs: dict[str, Any]) -> bool:
        return bool(kwargs.get("stream") or self.streaming) or self._choices(kwargs) == 1

    # ---- many calls ------------------------------------------------------------------------------

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """All prompts at once; LangChain's own takes one after the other. (Its `agenerate` is concurrent already.)"""
        shared: dict[str, Any] = {"tags": tags, "metadata": metadata, "run_name": run_name, **kwargs}
        ask = super().generate
        if len(messages) < 2:
            return ask(messages, stop, callbacks, run_id=run_id, **shared)

        def run(index: int) -> LLMResult:
            return ask([messages[index]], stop, callbacks, run_id=run_id if index == 0 else None, **shared)

        with grouped(len(messages)):
            results = run_together(len(messages), run)
        return LLMResult(
            generations=[result.generations[0] for result in results],
            llm_output=self._combine_llm_outputs([result.llm_output for result in results]),
            run=[info for result in results for info in result.run or []] or None,
        )

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        wide = whole_batch(config, len(inputs))
        with grouped(len(inputs)):
            return super().batch(inputs, wide, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        with grouped(len(inputs)):
            return await super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def agenerate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        with grouped(len(messages)):
            return await super().agenerate(messages, *args, **kwargs)

    def _combine_llm_outputs(self, _llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return sum_usage(_llm_outputs)

    # ---- tokens ----------------------------------------------------------------------------------

    def get_token_ids(self, text: str) -> list[int]:
        """The served model's own ids, from the server's `/tokenize`."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self._tokenized(text)

    def get_num_tokens_from_messages(
        self,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Tokens of the prompt that these messages become, with everything the chat template adds. Where it does not
        take them as they stand (`trim_messages` counts pieces of conversations, backwards), those of each by itself."""
        if self.custom_get_token_ids is not None:
            return super().get_num_tokens_from_messages(messages, tools)
        offered = tool_arguments(tools, None, None)["tools"] if tools else []
        if not messages and not offered:
            return 0
        try:
            return len(self._tokenized(request_messages(messages), offered))
        except ParrotBadRequestError:
            told = self.get_num_tokens(json.dumps(offered)) if offered else 0  # about as templates tell of them
            return super().get_num_tokens_from_messages(messages) + told

    def _tokenized(self, content: str | list[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        with sdk_errors():
            return remote.token_ids(self._endpoint, self.model_name, content, tools)

    # ---- tools and structured output -------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        if "response_format" in kwargs:
            kwargs["response_format"] = wire_format(kwargs["response_format"], strict)
        return self.bind(**tool_arguments(tools, tool_choice, strict), **kwargs)

    def with_structured_output(
        self,
        schema: Schema | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        tools: Sequence[Tool] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        asked = structured_format(schema, method, strict)
        if tools:  # beside the schema's own, where that is one
            asked["tools"] = [*asked.get("tools", ()), *tool_arguments(tools, None, strict)["tools"]]
        bound = self.bind(**{**asked, **kwargs})
        parser = structured_parser(schema, method)
        return with_raw(bound, parser) if include_raw else bound | parser
