"""Reasoning is told beside the content, whole and in streams, and may come back in the next request."""

from __future__ import annotations

from typing import Any

from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.output_format import ReasoningStyle

from .live import events_of, live, send


class Thinking(CharTokenizer):
    """Of a model whose chat template shows that it thinks first."""

    reasoning_style: ReasoningStyle = "think"


SAID = {"France": "<think>\nA city.\n</think>\n\nParis."}
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "France"}]}


async def test_reasoning_is_told_beside_the_content() -> None:
    async with live(SAID, tokenizer=Thinking()) as server:
        whole = (await send(server, "POST", "/v1/chat/completions", ASKED)).json()["choices"][0]
        assert (whole["message"]["reasoning_content"], whole["message"]["content"]) == ("A city.", "Paris.")
        streamed = events_of(await send(server, "POST", "/v1/chat/completions", ASKED | {"stream": True}))
        deltas = [event["choices"][0]["delta"] for event in streamed]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "A city."
        assert "".join(delta.get("content", "") for delta in deltas) == "Paris."


async def test_a_message_may_bring_its_reasoning_along() -> None:
    async with live(SAID, tokenizer=Thinking()) as server:
        said = {"role": "assistant", "content": "Paris.", "reasoning_content": "A city."}
        asked = {"messages": [*ASKED["messages"], said, {"role": "user", "content": "Sure?"}]}
        reply = await send(server, "POST", "/v1/chat/completions", asked)
        assert reply.status == 200 and "x-parrot-ignored" not in reply.headers


async def test_a_raw_text_has_no_reasoning() -> None:
    async with live(SAID, tokenizer=Thinking()) as server:
        reply = await send(server, "POST", "/v1/completions", {"prompt": "France"})
        assert reply.json()["choices"][0]["text"] == SAID["France"]
