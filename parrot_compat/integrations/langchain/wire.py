"""LangChain's messages to OpenAI's wire and back.

It knows both forms and nothing of clients, settings or callbacks: every function here is pure.

The invariant: text is carried as it is. A string stays a string and a list of parts stays that list, so the
model reads exactly what the app wrote.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    InvalidToolCall,
    ToolMessage,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import ChoiceDelta

from .tool_calls import told_apart

__all__ = ["MODEL_PROVIDER", "chat_chunk", "chat_result", "request_messages", "sum_usage", "usage_metadata"]

MODEL_PROVIDER = "parrot"
SPOKEN = frozenset(
    {
        *("text", "refusal", "json", "guard_content", "parrot:ref"),
        *("image", "image_url", "input_image", "audio", "audio_url", "input_audio", "video_url", "file", "media"),
    }
)
"""Blocks of answers that the wire has as parts of what is said. Providers put many others there (thoughts, calls, what
tools did that they host, with their results), and will put more: none is a part of what was said."""


_TEXTS = (None, "output_text", "text-plain")
"""Other names of blocks that are a text."""


def request_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    return [sent for message in messages for sent in _request_messages(message, answered)]


def _request_messages(message: BaseMessage, answered: Collection[str]) -> list[dict[str, Any]]:
    """Several where another provider's results of tools are blocks of a message."""
    spoken = _spoken(message) if isinstance(message, AIMessage) else message
    found = convert_to_openai_messages([spoken], text_format="string" if isinstance(spoken.content, str) else "block")
    for sent in found:
        sent["content"] = sent["content"] or ""  # the wire has no list of no parts
    if isinstance(message, AIMessage):
        # what cannot be parsed was no call for the app, unless it has answered it
        broken = [_broken_call(call) for call in message.invalid_tool_calls if call["id"] in answered]
        if more := [*_calls_in_blocks(message), *broken]:
            found[0].setdefault("tool_calls", []).extend(more)
        if reasoning := _reasoning(message):
            found[0]["reasoning_content"] = reasoning
    return found


def _spoken(message: AIMessage) -> AIMessage:
    """An answer with those blocks alone that were said. Calls and thoughts have fields of their own on the wire."""
    if isinstance(message.content, str):
        return message
    content: list[str | dict[str, Any]] = []
    for block in message.content:
        kind = None if isinstance(block, str) else block.get("type")
        if isinstance(block, str) or kind in SPOKEN:
            content.append(block)
        elif kind in _TEXTS and "text" in block:
            content.append({"type": "text", "text": block["text"]})
        elif kind is None and not SPOKEN.isdisjoint(block):  # Bedrock's have names in the place of types
            content.append(block)
    return message.model_copy(update={"content": content or ""})


def _calls_in_blocks(message: AIMessage) -> list[dict[str, Any]]:
    """Those that are nothing but blocks, as other providers write them."""
    known = {call["id"] for call in (*message.tool_calls, *message.invalid_tool_calls)}
    blocks = [] if isinstance(message.content, str) else message.content
    return [call for block in blocks if (call := _call_in(block)) is not None and call["id"] not in known]


def _call_in(block: str | dict[Any, Any]) -> dict[str, Any] | None:
    match block:
        case {"type": "tool_use", "id": id, "name": name, "input": given}:
            arguments = json.dumps(given, ensure_ascii=False)
        case {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}:
            pass
        case _:
            return None
    return {"type": "function", "id": id, "function": {"name": name, "arguments": arguments}}


def _broken_call(call: InvalidToolCall) -> dict[str, Any]:
    function = {"name": call["name"] or "", "arguments": call["args"] or ""}
    return {"type": "function", "id": call["id"], "function": function}


def _reasoning(message: AIMessage) -> str:
    """What the model thought before it answered, as its server told it. Models that call tools amid a thought are given
    it back; their chat templates say how much of it."""
    told = message.additional_kwargs.get("reasoning_content")
    if isinstance(told, str) or isinstance(message.content, str):
        return told if isinstance(told, str) else ""
    blocks = [block for block in message.content if isinstance(block, dict) and block.get("type") == "reasoning"]
    return "\n".join(text for block in blocks if isinstance(text := block.get("reasoning"), str))


def chat_result(completion: ChatCompletion) -> ChatResult:
    """Every choice as a generation. What all choices share (model, usage, …) is in `llm_output`."""
    shared: dict[str, Any] = {
        "token_usage": completion.usage.model_dump(exclude_none=True) if completion.usage else None,
        "model_name": completion.model,
        "system_fingerprint": completion.system_fingerprint,
        "id": completion.id,
        **_receipt(completion.model_extra),
    }
    generations = [_generation(choice) for choice in completion.choices]
    if generations and isinstance(generations[0].message, AIMessage):
        # Tokens are counted once for all choices, so they stand once.
        generations[0].message.usage_metadata = usage_metadata(completion.usage)
    return ChatResult(generations=generations, llm_output=shared)


def chat_chunk(event: ChatCompletionChunk) -> ChatGenerationChunk | None:
    """One event of a stream; `None` where it carries nothing. Usage comes on a chunk without choices."""
    usage, receipt = usage_metadata(event.usage), _receipt(event.model_extra)
    if not event.choices:
        if usage is None and not receipt:
            return None
        message = AIMessageChunk(content="", usage_metadata=usage, response_metadata=_metadata())
        return ChatGenerationChunk(message=message, generation_info=receipt or None)
    choice = event.choices[0]
    delta = choice.delta
    info: dict[str, Any] = dict(receipt)
    if choice.finish_reason:
        info |= {"finish_reason": choice.finish_reason, "model_name": event.model}
        if event.system_fingerprint:
            info["system_fingerprint"] = event.system_fingerprint
    if choice.logprobs:
        info["logprobs"] = choice.logprobs.model_dump()
    message = AIMessageChunk(
        content=delta.content or "",
        additional_kwargs=_additional(delta.refusal, delta.model_extra),
        tool_call_chunks=_tool_call_chunks(delta),
        usage_metadata=usage,
        response_metadata=_metadata(),
    )
    return ChatGenerationChunk(message=message, generation_info=info or None)


def usage_metadata(usage: CompletionUsage | None) -> UsageMetadata | None:
    """Tokens as LangChain counts them. Details that the server does not tell are left out, not set to zero."""
    if usage is None:
        return None
    read = InputTokenDetails()
    drawn = OutputTokenDetails()
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    if prompt is not None and prompt.cached_tokens is not None:
        read["cache_read"] = prompt.cached_tokens
    if prompt is not None and prompt.audio_tokens is not None:
        read["audio"] = prompt.audio_tokens
    if completion is not None and completion.reasoning_tokens is not None:
        drawn["reasoning"] = completion.reasoning_tokens
    if completion is not None and completion.audio_tokens is not None:
        drawn["audio"] = completion.audio_tokens
    metadata = UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )
    if read:
        metadata["input_token_details"] = read
    if drawn:
        metadata["output_token_details"] = drawn
    return metadata


def sum_usage(outputs: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The `llm_output` of several calls as one: tokens added up, the rest from the first that has it."""
    combined: dict[str, Any] = {}
    for output in outputs:
        for key, value in (output or {}).items():
            if key == "token_usage":
                combined[key] = _added(combined.get(key) or {}, value or {})
            elif key in ("model_name", "system_fingerprint") and combined.get(key) is None:
                combined[key] = value
    return combined


def _added(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    total = dict(left)
    for key, value in right.items():
        if isinstance(value, Mapping):
            total[key] = _added(total.get(key) or {}, value)
        elif isinstance(value, int):
            total[key] = (total.get(key) or 0) + value
    return total


def _generation(choice: Choice) -> ChatGeneration:
    calls, broken = told_apart(call.model_dump() for call in choice.message.tool_calls or ())
    info: dict[str, Any] = {"finish_reason": choice.finish_reason}
    info["logprobs"] = choice.logprobs.model_dump() if choice.logprobs else None
    message = AIMessage(
        content=choice.message.content or "",
        additional_kwargs=_additional(choice.message.refusal, choice.message.model_extra),
        tool_calls=calls,
        invalid_tool_calls=broken,
        response_metadata=_metadata(),
    )
    return ChatGeneration(message=message, generation_info=info)


def _tool_call_chunks(delta: ChoiceDelta) -> list[ToolCallChunk]:
    return [
        tool_call_chunk(
            name=call.function.name if call.function else None,
            args=call.function.arguments if call.function else None,
            id=call.id,
            index=call.index,
        )
        for call in delta.tool_calls or []
    ]


def _additional(refusal: str | None, extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """What has no field of its own in LangChain's message: a refusal, and the reasoning some servers send."""
    found: dict[str, Any] = {"refusal": refusal} if refusal else {}
    reasoning = (extra or {}).get("reasoning_content") or (extra or {}).get("reasoning")
    if reasoning:
        found["reasoning_content"] = reasoning
    return found


def _metadata() -> dict[str, Any]:
    return {"model_provider": MODEL_PROVIDER}


def _receipt(extra: Mapping[str, Any] | None) -> dict[str, Any]:
    receipt = (extra or {}).get("parrot")
    return {"parrot": receipt} if receipt else {}
