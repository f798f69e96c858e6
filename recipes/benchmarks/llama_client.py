"""What a LlamaIndex app is given of a lane: a response synthesizer over the lane's LLM, and a log of every call.

Only the class of the LLM differs between lanes: `OpenAILike`, or our `ParrotLLM`; both tell LlamaIndex's callbacks of
their calls, which is where the log comes from. A module of its own, imported by those who need it: LlamaIndex takes
seconds to import, and `OpenAILike` wants an older `openai` than ours (`scripts/bench-setup-llamaindex`).

The invariant: that of `clients`; a call is named by its place in the order in which the app made them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from llama_index.core import PromptHelper, get_response_synthesizer
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.llms import LLM
from llama_index.core.response_synthesizers import BaseSynthesizer, ResponseMode

from .clients import TIMEOUT_S, CallRecord, Client, Endpoint, fingerprint, sdk

__all__ = ["synthesizer"]

WINDOW = 1 << 20
"""Tokens: what goes into one prompt is limited by `piece_tokens`, so that it is the same for every model."""


def synthesizer(
    client: Client,
    mode: ResponseMode,
    *,
    opening: str,
    max_tokens: int,
    piece_tokens: int,
    count: Callable[[str], list[int]],
    streaming: bool,
) -> BaseSynthesizer:
    """`opening` is the system prompt of all calls; a prompt takes at most `piece_tokens` of the text, by `count`."""
    llm = _llm(client.endpoint, opening, max_tokens)
    return get_response_synthesizer(
        llm=llm,
        callback_manager=CallbackManager([_Log(client.calls, max_tokens)]),
        prompt_helper=PromptHelper(
            context_window=WINDOW,
            num_output=max_tokens,
            chunk_overlap_ratio=0.0,
            chunk_size_limit=piece_tokens,
            tokenizer=count,
        ),
        response_mode=mode,
        streaming=streaming,
        use_async=True,
    )


def _llm(endpoint: Endpoint, opening: str, max_tokens: int) -> LLM:
    settings: dict[str, Any] = {
        "model": endpoint.model,
        "api_base": endpoint.base_url,
        "api_key": "none",
        "temperature": 0.0,
        "max_tokens": max_tokens,
        "context_window": WINDOW,
        "system_prompt": opening,
        "timeout": TIMEOUT_S,
        "max_retries": 0,
    }
    if endpoint.chat_class == "parrot":
        from parrot_compat.integrations.llamaindex import ParrotLLM

        return ParrotLLM(**settings, count_by_server=False, additional_kwargs={"ignore_eos": True})
    from llama_index.llms.openai_like import OpenAILike

    more = {"extra_body": {"ignore_eos": True}, "stream_options": {"include_usage": True}}
    # the apps of a lane share their connections, as those of the other classes do
    return OpenAILike(
        **settings, is_chat_model=True, additional_kwargs=more, async_openai_client=sdk(endpoint.base_url)
    )


class _Log(BaseCallbackHandler):
    """LlamaIndex's word on every call of one app."""

    def __init__(self, calls: list[CallRecord], max_tokens: int) -> None:
        super().__init__([], [])
        self._calls = calls
        self._max_tokens = max_tokens
        self._running: dict[str, CallRecord] = {}

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        messages = (payload or {}).get(EventPayload.MESSAGES)
        if event_type is CBEventType.LLM and messages is not None:
            plain = [{"role": message.role.value, "content": message.content or ""} for message in messages]
            name = f"call-{len(self._calls)}"
            record = CallRecord(name=name, prompt=fingerprint(plain), max_tokens=self._max_tokens)
            self._calls.append(record)
            self._running[event_id] = record
            record.submitted = time.perf_counter()
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **kwargs: Any,
    ) -> None:
        record = self._running.pop(event_id, None)
        if record is None or payload is None:
            return
        response = payload.get(EventPayload.RESPONSE)
        if response is None:
            record.error = repr(payload.get(EventPayload.EXCEPTION))
            return
        record.finished = time.perf_counter()
        record.text = response.message.content or ""
        usage = getattr(response.raw, "usage", None)
        if usage is not None:
            details = usage.prompt_tokens_details
            record.prompt_tokens, record.output_tokens = usage.prompt_tokens, usage.completion_tokens
            record.cached_tokens = (details and details.cached_tokens) or 0

    def start_trace(self, trace_id: str | None = None) -> None:
        pass

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        pass
