"""A coding agent's loop: tools, a call each turn, a history that only grows, a session header, its prefix reused."""

from __future__ import annotations

import json
import os
from typing import Any

import openai
import pytest

URL, MODEL = os.environ["CONFORMANCE_URL"], os.environ["CONFORMANCE_MODEL"]
FILES: dict[str, str] = {"main.py": "print('hello')\n"}
PATH: dict[str, Any] = {"type": "string", "enum": list(FILES)}


def tool(name: str, what: str, **properties: Any) -> Any:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": what, "parameters": schema}}


TOOLS = [
    tool("read_file", "Reads a file.", path=PATH),
    tool("write_file", "Writes a file.", path=PATH, text={"type": "string", "maxLength": 12}),
    tool("list_files", "Lists files."),
]


def obey(name: str, arguments: dict[str, Any]) -> str:
    if name == "list_files":
        return "\n".join(FILES)
    if name == "write_file":
        FILES[arguments["path"]] = arguments["text"]
        return "written"
    return FILES[arguments["path"]]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_every_turn_calls_a_tool_and_reuses_the_turns_before(is_streamed: bool) -> None:
    client = openai.OpenAI(
        base_url=URL, api_key="none", max_retries=0, default_headers={"x-session-id": f"agent-{is_streamed}"}
    )
    messages: list[Any] = [
        {"role": "system", "content": "You write code, and use tools. " * 8},
        {"role": "user", "content": [{"type": "text", "text": "Say goodbye instead."}]},
    ]
    asked: Any = {"model": MODEL, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    asked |= {"max_tokens": 120, "temperature": 1.0, "extra_body": {"prompt_cache_key": "agent"}}
    for turn in range(6):
        if is_streamed:
            with client.chat.completions.stream(
                messages=messages, **asked, stream_options={"include_usage": True}, seed=turn
            ) as stream:
                reply: Any = stream.get_final_completion()
        else:
            reply = client.chat.completions.create(messages=messages, **asked, seed=turn)
        message, usage = reply.choices[0].message, reply.usage
        assert reply.choices[0].finish_reason == "tool_calls" and len(message.tool_calls) == 1
        if turn:
            assert usage.prompt_tokens_details.cached_tokens > 0.6 * usage.prompt_tokens, usage
        # as agents do it: what came goes back as it is
        messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
        for call in message.tool_calls:
            result = obey(call.function.name, json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    final = client.chat.completions.create(
        model=MODEL, messages=messages, tools=TOOLS, tool_choice="none", max_tokens=8
    )
    assert final.choices[0].message.content and not final.choices[0].message.tool_calls
