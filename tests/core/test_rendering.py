"""Rendering: which prompts are encoded beside the event loop."""

from __future__ import annotations

from typing import Any

import pytest

from parrot_compat.core.prompt import Chat, Text, Tokens
from parrot_compat.core.rendering import Renderer

HELLO: dict[str, Any] = {"role": "user", "content": "hello"}
CALLED: dict[str, Any] = {
    "role": "assistant",
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "write", "arguments": "x" * 500_000}}],
}


def tool(description: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": description}}}
    return {"type": "function", "function": {"name": "write", "parameters": schema}}


@pytest.mark.parametrize(
    "content",
    [
        Text("x" * 50_000),
        Tokens((1,) * 100_000),
        Chat(({"role": "user", "content": "x" * 50_000},)),
        Chat((HELLO, CALLED)),
        Chat((HELLO, {"role": "assistant", "content": "", "reasoning_content": "x" * 50_000})),
        Chat((HELLO,), (tool("x" * 50_000),)),
        Chat((HELLO,), tuple(tool("x" * 500) for _ in range(50))),
        Chat((HELLO,), template={"persona": "x" * 50_000}),
    ],
    ids=["text", "ids", "message", "arguments of a call", "reasoning", "a schema", "many schemas", "template"],
)
def test_a_prompt_is_large_wherever_its_text_stands(content: Text | Tokens | Chat) -> None:
    assert Renderer.is_large(content)


def test_a_short_chat_with_a_few_tools_is_rendered_at_once() -> None:
    assert not Renderer.is_large(Chat((HELLO, HELLO), tuple(tool("What is written.") for _ in range(8))))
