"""LlamaIndex's messages to OpenAI's wire and back.

It knows both forms and nothing of clients or settings. The invariant: text is carried as it is, and an answer put
together from a stream is the answer that would have come whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    ChatResponse,
    ContentBlock,
    ImageBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import ChoiceLogprobs
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall
from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob, TopLogprob

__all__ = ["Heard", "chat_response", "request_messages"]

ASSISTANTS = (MessageRole.CHATBOT, MessageRole.MODEL)
CARRIED = ("tool_call_id", "name", "refusal", "audio")


def request_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    return [_request_message(message) for message in messages]


def _request_message(message: ChatMessage) -> dict[str, Any]:
    role = MessageRole.ASSISTANT if message.role in ASSISTANTS else message.role
    parts = [part for block in message.blocks if (part := _part(block)) is not None]
    if all(part["type"] == "text" for part in parts):
        content: Any = "".join(part["text"] for part in parts)
    else:
        content = parts
    sent: dict[str, Any] = {"role": role.value, "content": content}
    sent |= {name: message.additional_kwargs[name] for name in CARRIED if name in message.additional_kwargs}
    if calls := _tool_calls(message):
        sent |= {"content": content or None, "tool_calls": calls}
    thoughts = [block.content for block in message.blocks if isinstance(block, ThinkingBlock) and block.content]
    if thoughts and role is MessageRole.ASSISTANT:
        # models that call tools amid a thought are given it back; their chat templates say how much of it
        sent["reasoning_content"] = "\n".join(thoughts)
    return sent


def _part(block: ContentBlock) -> dict[str, Any] | None:
    match block:
        case TextBlock():
            return {"type": "text", "text": block.text}
        case ImageBlock():
            if block.url is not None:
                url = str(block.url)
            else:
                encoded = block.resolve_image(as_base64=True).read().decode()
                url = f"data:{block.image_mimetype or 'image/png'};base64,{encoded}"
            return {"type": "image_url", "image_url": {"url": url, "detail": block.detail or "auto"}}
        case AudioBlock():
            encoded = block.resolve_audio(as_base64=True).read().decode()
            return {"type": "input_audio", "input_audio": {"data": encoded, "format": block.format or "wav"}}
        case ThinkingBlock() | ToolCallBlock() | CachePoint():
            return None  # not a part of what is said: calls and thoughts have fields of their own, the rest stays here
    raise ValueError(f"a message of OpenAI's API cannot hold a {block.block_type} block")


def _tool_calls(message: ChatMessage) -> list[dict[str, Any]]:
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [_tool_call(block) for block in blocks]
    # As older integrations keep them.
    older = message.additional_kwargs.get("tool_calls") or ()
    return [call if isinstance(call, dict) else call.model_dump(exclude_none=True) for call in older]


def _tool_call(block: ToolCallBlock) -> dict[str, Any]:
    given = block.tool_kwargs
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    function = {"name": block.tool_name, "arguments": arguments}
    return {"id": block.tool_call_id, "type": "function", "function": function}


# ---- answers -----------------------------------------------------------------------------------------


def chat_response(completion: ChatCompletion) -> ChatResponse:
    choice = completion.choices[0]
    message = choice.message
    calls = [
        ToolCallBlock(tool_call_id=call.id, tool_name=call.function.name, tool_kwargs=call.function.arguments)
        for call in message.tool_calls or ()
        if call.type == "function"
    ]
    thought = _thought(message.model_extra)
    return ChatResponse(
        message=_message(message.content, thought, calls, message.refusal),
        raw=completion,
        logprobs=_logprobs(choice.logprobs),
        additional_kwargs={**_usage(completion.usage), **_ended(choice.finish_reason)},
    )


class Heard:
    """A streamed answer so far. Each chunk makes a response that holds everything up to it."""

    def __init__(self) -> None:
        self._text: str | None = None
        self._thought = ""
        self._refusal: str | None = None
        self._calls: dict[int, ToolCallBlock] = {}
        self._finish_reason: str | None = None

    def response(self, chunk: ChatCompletionChunk) -> ChatResponse:
        delta, more = "", {}
        if chunk.choices:
            said = chunk.choices[0].delta
            self._finish_reason = chunk.choices[0].finish_reason or self._finish_reason
            delta = said.content or ""
            if said.content is not None:
                self._text = (self._text or "") + said.content
            if said.refusal is not None:
                self._refusal = (self._refusal or "") + said.refusal
            if thought := _thought(said.model_extra):
                self._thought += thought
                more["thinking_delta"] = thought
            for call in said.tool_calls or ():
                self._hear(call)
        blocks = [block.model_copy() for _, block in sorted(self._calls.items())]
        return ChatResponse(
            message=_message(self._text, self._thought, blocks, self._refusal),
            delta=delta,
            raw=chunk,
            additional_kwargs={**_usage(chunk.usage), **_ended(self._finish_reason), **more},
        )

    def _hear(self, call: ChoiceDeltaToolCall) -> None:
        block = self._calls.setdefault(call.index, ToolCallBlock(tool_name="", tool_kwargs=""))
        block.tool_call_id = call.id or block.tool_call_id
        if call.function is not None:
            block.tool_name += call.function.name or ""
            block.tool_kwargs = f"{block.tool_kwargs}{call.function.arguments or ''}"


def _message(text: str | None, thought: str, calls: Sequence[ToolCallBlock], refusal: str | None) -> ChatMessage:
    blocks: list[ContentBlock] = [ThinkingBlock(content=thought)] if thought else []
    if text is not None or not calls:
        blocks.append(TextBlock(text=text or ""))
    more: dict[str, Any] = {} if refusal is None else {"refusal": refusal}
    if calls:  # LlamaIndex's programs look here whether there are any
        more["tool_calls"] = [_tool_call(block) for block in calls]
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=[*blocks, *calls], additional_kwargs=more)


def _thought(extra: Mapping[str, Any] | None) -> str:
    """Reasoning, under the names that servers give it."""
    return (extra or {}).get("reasoning_content") or (extra or {}).get("reasoning") or ""


def _ended(finish_reason: str | None) -> dict[str, Any]:
    """Only of an answer that is over."""
    return {"finish_reason": finish_reason} if finish_reason else {}


def _usage(usage: CompletionUsage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    counts: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    details = usage.prompt_tokens_details
    if details is not None and details.cached_tokens is not None:
        counts["cached_tokens"] = details.cached_tokens
    return counts


def _logprobs(logprobs: ChoiceLogprobs | None) -> list[list[LogProb]] | None:
    if logprobs is None or logprobs.content is None:
        return None
    return [[_logprob(top) for top in drawn.top_logprobs] or [_logprob(drawn)] for drawn in logprobs.content]


def _logprob(drawn: ChatCompletionTokenLogprob | TopLogprob) -> LogProb:
    return LogProb(token=drawn.token, logprob=drawn.logprob, bytes=drawn.bytes or [])
