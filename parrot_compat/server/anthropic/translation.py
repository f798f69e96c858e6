"""Translation: a request of Anthropic's API in the words of OpenAI's, which is how it is answered.

It knows nothing of calls. `translated` gives the body of a chat; the errors of that chat come back with the field that
the client wrote.

The invariant: the messages say what the request said, in its order, but that all system texts come first and
neighbours of one role are one message; no part of them is dropped in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from parrot_compat.server.bodies import explain
from parrot_compat.server.errors import ApiError, invalid, not_supported_yet
from parrot_compat.server.hints import Hints
from parrot_compat.server.openai.chat_schema import ChatRequest

from .messages_schema import Block, CountTokensRequest, InputMessage, MessagesRequest, ThinkingConfig

__all__ = ["CLIENT_NAMES", "translated", "untranslated"]

_MEDIA = frozenset({"image", "document", "search_result", "container_upload"})
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_BILLING = "x-anthropic-billing-header"
"""What Claude Code puts before its system prompt begins so. It is another text in each request: a prompt that begins
with it shares nothing with the one before."""
_SAME = ("temperature", "top_p", "top_k", "stream", "model")


def translated(asked: CountTokensRequest, hints: Hints) -> ChatRequest:
    """Errors: `ApiError` 400."""
    asked.check()
    hints.ignored(*dict.fromkeys(asked.ignored()))
    said = [
        one
        for index, message in enumerate(asked.messages)
        for one in _messages(message, f"messages[{index}].content", hints)
    ]
    # many chat templates refuse a system text that is not the first, and two neighbours of one role
    said.sort(key=lambda message: message["role"] != "system")
    messages = _combined([*_system(asked.system, hints), *said])
    body: dict[str, Any] = {"model": asked.model, "messages": messages}
    if asked.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "parameters": tool.input_schema}
                | {name: value for name in ("description", "strict") if (value := getattr(tool, name)) is not None},
            }
            for tool in asked.tools
        ]
    if (choice := asked.tool_choice) is not None:
        named = {"type": "function", "function": {"name": choice.name}}
        body["tool_choice"] = named if choice.type == "tool" else _CHOICES[choice.type]
        body |= {"parallel_tool_calls": False} if choice.disable_parallel_tool_use else {}
    if asked.thinking is not None:
        body["chat_template_kwargs"] = _template(asked.thinking)
    if (config := asked.output_config) is not None:
        body |= {} if config.effort is None else {"reasoning_effort": config.effort}
        if config.format is not None:
            schema = {"name": "answer", "schema": config.format.schema_, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(asked, MessagesRequest):
        body |= {name: value for name in _SAME if (value := getattr(asked, name)) is not None}
        body |= {"max_tokens": asked.max_tokens, "stop": asked.stop_sequences or []}
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        raise untranslated(explain(error)) from None


def _template(thinking: ThinkingConfig) -> dict[str, Any]:
    """Told to templates that can turn thinking off; how much of it there is, is the model's affair."""
    return {"enable_thinking": thinking.type != "disabled"}


def _system(content: str | list[Block] | None, hints: Hints) -> list[dict[str, Any]]:
    """None or one."""
    texts = _texts(content or "", "system")
    if isinstance(texts, str):
        if texts.startswith(_BILLING):
            hints.ignored(f"system.{_BILLING}")
            texts = texts.partition("\n")[2]
    else:
        for place, part in enumerate(texts):
            if part["text"].startswith(_BILLING):
                hints.ignored(f"system[{place}]")
        texts = [part for part in texts if not part["text"].startswith(_BILLING)]
    return [{"role": "system", "content": texts}] if texts else []


def _combined(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours of one role are one turn, as Anthropic says of its own API. Results of tools are each their own."""
    turns: list[list[dict[str, Any]]] = []
    for message in messages:
        if turns and message["role"] == turns[-1][0]["role"] != "tool":
            turns[-1].append(message)
        else:
            turns.append([message])
    return [_one(turn) for turn in turns]


def _one(turn: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All of a turn's messages as one."""
    if len(turn) == 1:
        return turn[0]
    both: dict[str, Any] = {"role": turn[0]["role"]}
    if thoughts := "".join(message.get("reasoning_content", "") for message in turn):
        both["reasoning_content"] = thoughts
    if calls := [call for message in turn for call in message.get("tool_calls", ())]:
        both["tool_calls"] = calls
    content = [part for message in turn for part in _parts(message)]
    return both | ({"content": content or ""} if content or not calls else {})


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content") or []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _messages(message: InputMessage, path: str, hints: Hints) -> Iterator[dict[str, Any]]:
    """One or several: what a tool has said is a message of its own."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
    elif message.role == "assistant":
        yield _said(message.content, path, hints)
    else:
        texts: list[dict[str, Any]] = []
        for place, block in enumerate(message.content):
            if block.type != "tool_result":
                texts.append(_text(block, f"{path}[{place}]"))
                continue
            if texts:
                yield {"role": message.role, "content": texts}
                texts = []
            yield _tool_said(block, f"{path}[{place}]")
        if texts or not message.content:
            yield {"role": message.role, "content": texts}


def _tool_said(block: Block, path: str) -> dict[str, Any]:
    if block.tool_use_id is None:
        raise invalid(f"{path}.tool_use_id", "missing", "missing_required_parameter")
    content = _texts(block.content or "", f"{path}.content")
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content or ""}


def _said(blocks: Sequence[Block], path: str, hints: Hints) -> dict[str, Any]:
    """What the assistant has said before."""
    said: dict[str, Any] = {"role": "assistant"}
    texts, thoughts, calls = [], [], []
    for place, block in enumerate(blocks):
        where = f"{path}[{place}]"
        match block.type:
            case "thinking":
                thoughts.append(block.thinking or "")
            case "redacted_thinking":
                hints.ignored(where)  # nothing here has written it, and nothing can read it
            case "tool_use":
                calls.append(_called(block, where))
            case _:
                texts.append(_text(block, where))
    said |= {"content": texts or ""} if texts or not calls else {}  # an answer may have been thoughts alone, or nothing
    said |= {"reasoning_content": "".join(thoughts)} if thoughts else {}
    return said | ({"tool_calls": calls} if calls else {})


def _called(block: Block, path: str) -> dict[str, Any]:
    for name in ("id", "name", "input"):
        if getattr(block, name) is None:
            raise invalid(f"{path}.{name}", "missing", "missing_required_parameter")
    function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
    return {"id": block.id, "type": "function", "function": function}


def _texts(content: str | list[Block], path: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [_text(block, f"{path}[{place}]") for place, block in enumerate(content)]


def _text(block: Block, path: str) -> dict[str, Any]:
    if block.type in _MEDIA:
        raise not_supported_yet(f"{path}.type", f"{block.type} blocks cannot be shown to this model")
    if block.type != "text":
        raise invalid(f"{path}.type", f"a {block.type!r} block cannot stand here")
    if block.text is None:
        raise invalid(f"{path}.text", "missing", "missing_required_parameter")
    return {"type": "text", "text": block.text}


# ---- back ------------------------------------------------------------------------------------------------

CLIENT_NAMES = {"chat_template_kwargs.enable_thinking": "thinking", "reasoning_effort": "output_config.effort"}
"""Of hints."""
_FIELDS = (
    (re.compile(r"^stop\b"), "stop_sequences"),
    (re.compile(r"^response_format\b"), "output_config.format"),
    (re.compile(r"^reasoning_effort\b"), "output_config.effort"),
    (re.compile(r"^(tools\[\d+\])\.function\.parameters\b"), r"\1.input_schema"),
    (re.compile(r"^(tools\[\d+\])\.function\b"), r"\1"),
)


def untranslated(error: ApiError) -> ApiError:
    """The same error with the field as the client calls it."""
    problem, param = error.problem, error.problem.param
    if param is None:
        return error
    for pattern, name in _FIELDS:
        param = pattern.sub(name, param)
    return problem.about(param).error()
