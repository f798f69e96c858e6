"""`ParrotLLM`: LlamaIndex's LLM of a parrot_compat server, or of any OpenAI-compatible one.

It knows LlamaIndex's interface. Settings are in `settings`, messages are translated in `wire`, tools and schemas in
`tools`, errors in `integrations.errors`; requests go through `integrations.plans.calls`, where a call that the
`planner` has sent ahead is answered by what came of it.

The invariant: what the app gets is what the server answered. Nothing is added, repaired or left out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, TypeVar

from llama_index.core.base.llms.generic_utils import (
    astream_chat_response_to_completion_response,
    chat_response_to_completion_response,
    prompt_to_messages,
    stream_chat_response_to_completion_response,
)
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.program.streaming_utils import process_streaming_content_incremental
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.tools.types import BaseTool
from llama_index.core.types import PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel

from parrot_compat.integrations.errors import sdk_errors
from parrot_compat.integrations.plans import calls

from .planner import planner
from .settings import ParrotSettings
from .tools import (
    as_many,
    atool_stream,
    refuse_cut,
    response_format,
    tool_arguments,
    tool_selections,
    tool_stream,
)
from .wire import Heard, chat_response

__all__ = ["ParrotLLM"]

Model = TypeVar("Model", bound=BaseModel)

dispatcher = get_dispatcher(__name__)


class ParrotLLM(ParrotSettings):
    """Takes the place of LlamaIndex's `OpenAI`: same methods, another server.

    ```python
    Settings.llm = ParrotLLM(base_url="http://127.0.0.1:8000/v1", temperature=0)
    index.as_query_engine(response_mode="tree_summarize").query("What is it about?")
    ```
    """

    # ---- chat --------------------------------------------------------------------------------------

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._chat(messages, kwargs)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return await self._achat(messages, kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        return self._stream(messages, kwargs)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        return self._astream(messages, kwargs)

    # ---- complete: a chat of one message -------------------------------------------------------------

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return chat_response_to_completion_response(self._chat(self._prompt(prompt, formatted), kwargs))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return chat_response_to_completion_response(await self._achat(self._prompt(prompt, formatted), kwargs))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        return stream_chat_response_to_completion_response(self._stream(self._prompt(prompt, formatted), kwargs))

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        return astream_chat_response_to_completion_response(self._astream(self._prompt(prompt, formatted), kwargs))

    def _prompt(self, prompt: str, formatted: bool) -> list[ChatMessage]:
        if not formatted and self.completion_to_prompt is not None:
            prompt = self.completion_to_prompt(prompt)
        return prompt_to_messages(prompt)

    # ---- one call ----------------------------------------------------------------------------------

    def _chat(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> ChatResponse:
        request = self._request(messages, kwargs)
        asked = planner.asked(self._endpoint, request)
        with sdk_errors():
            return chat_response(calls.complete(self._endpoint, request, asked))

    async def _achat(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> ChatResponse:
        request = self._request(messages, kwargs)
        asked = planner.asked(self._endpoint, request)
        with sdk_errors():
            return chat_response(await calls.acomplete(self._endpoint, request, asked))

    def _stream(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> ChatResponseGen:
        request = self._request(messages, kwargs, stream=True)
        asked = planner.asked(self._endpoint, request)  # now: the span that it belongs to ends before it is read

        def responses() -> ChatResponseGen:
            heard = Heard()
            # Leaving the block closes the connection, and the server stops the work.
            with sdk_errors(), closing(calls.stream(self._endpoint, request, asked)) as chunks:
                for chunk in chunks:
                    yield heard.response(chunk)
            planner.stream_ended()

        return responses()

    def _astream(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> ChatResponseAsyncGen:
        request = self._request(messages, kwargs, stream=True)
        asked = planner.asked(self._endpoint, request)

        async def responses() -> ChatResponseAsyncGen:
            heard = Heard()
            with sdk_errors():
                async with aclosing(calls.astream(self._endpoint, request, asked)) as chunks:
                    async for chunk in chunks:
                        yield heard.response(chunk)
            planner.stream_ended()

        return responses()

    # ---- tools -------------------------------------------------------------------------------------

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or ())
        if user_msg is not None:
            messages.append(ChatMessage(content=user_msg) if isinstance(user_msg, str) else user_msg)
        offered = tool_arguments(tools, tool_choice, required=tool_required, parallel=allow_parallel_tool_calls)
        return {"messages": messages, **offered, **kwargs}

    def stream_chat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> ChatResponseGen:
        """Errors: `ValueError` behind the last response if a call was cut off."""
        prepared = self._prepare_chat_with_tools_compat(tools, *args, **kwargs)
        return tool_stream(self.stream_chat(**prepared), parallel=prepared.get("parallel_tool_calls"))

    async def astream_chat_with_tools(
        self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """As `stream_chat_with_tools`."""
        prepared = self._prepare_chat_with_tools_compat(tools, *args, **kwargs)
        return atool_stream(await self.astream_chat(**prepared), parallel=prepared.get("parallel_tool_calls"))

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        return as_many(response, parallel=kwargs.get("parallel_tool_calls", allow_parallel_tool_calls))

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Errors: `ValueError` where a call was cut off, or the answer calls none and `error_on_no_tool_call`."""
        selections = tool_selections(response)
        if not selections and error_on_no_tool_call:
            raise ValueError(f"the model was expected to call a tool, and said {response.message.content!r}")
        return selections

    # ---- structured output: a JSON schema that the server holds the model to --------------------------

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Errors: pydantic's `ValidationError` where the answer is none of `output_cls` (it was cut off, for one)."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            by_tool: Model = super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return by_tool
        messages = self._structured_messages(output_cls, prompt, prompt_args)
        response = self.chat(messages, **response_format(output_cls, llm_kwargs))
        return _parsed(response, output_cls)

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """As `structured_predict`."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            by_tool: Model = await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return by_tool
        messages = self._structured_messages(output_cls, prompt, prompt_args)
        response = await self.achat(messages, **response_format(output_cls, llm_kwargs))
        return _parsed(response, output_cls)

    def _structured_messages(
        self, output_cls: type[BaseModel], prompt: BasePromptTemplate, prompt_args: dict[str, Any]
    ) -> list[ChatMessage]:
        dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        return self._get_messages(prompt, **prompt_args)

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        messages = self._get_messages(prompt, **prompt_args)
        responses = self.stream_chat(messages, **response_format(output_cls, llm_kwargs))

        def objects() -> Generator[Any, None, None]:
            found: Any = None
            response: ChatResponse | None = None
            with closing(responses):
                for response in responses:
                    found = process_streaming_content_incremental(response, output_cls, found)
                    yield found
            refuse_cut(response)

        return objects()

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        messages = self._get_messages(prompt, **prompt_args)
        responses = await self.astream_chat(messages, **response_format(output_cls, llm_kwargs))

        async def objects() -> AsyncGenerator[Any, None]:
            found: Any = None
            response: ChatResponse | None = None
            async with aclosing(responses):
                async for response in responses:
                    found = process_streaming_content_incremental(response, output_cls, found)
                    yield found
            refuse_cut(response)

        return objects()


def _parsed(response: ChatResponse, output_cls: type[Model]) -> Model:
    output = output_cls.model_validate_json(response.message.content or "")
    dispatcher.event(LLMStructuredPredictEndEvent(output=output))
    return output
