"""Reasoning is told beside the content, whole and in streams, and may come back in the next request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.output_format import ReasoningStyle
from parrot_compat.core.prompt import Chat, Content

from .live import Live, events_of, live, send


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
        reply = await send(server, "POST", "/v1/completions", {"prompt": "France", "max_tokens": 200})
        assert reply.json()["choices"][0]["text"] == SAID["France"]


async def test_tokens_of_reasoning_are_counted_where_a_model_thinks() -> None:
    async with live(SAID, tokenizer=Thinking()) as server:
        usage = (await send(server, "POST", "/v1/chat/completions", ASKED)).json()["usage"]
        counted = usage["completion_tokens_details"]["reasoning_tokens"]
        thought = len("<think>\nA city.\n</think>")
        assert thought <= counted < thought + 8 <= usage["completion_tokens"]  # it draws eight tokens at once
        asked = ASKED | {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
        streamed = events_of(await send(server, "POST", "/v1/chat/completions", asked))[-1]["usage"]
        assert streamed["completion_tokens_details"] == {"reasoning_tokens": 2 * counted}
    async with live(SAID) as server:
        usage = (await send(server, "POST", "/v1/chat/completions", ASKED)).json()["usage"]
        assert "completion_tokens_details" not in usage


class Switched(Thinking):
    """Of a model whose chat template has a switch for thinking."""

    template_variables = frozenset({"enable_thinking"})

    def encode(self, content: Content) -> tuple[int, ...]:
        tokens = super().encode(content)
        is_on = not isinstance(content, Chat) or content.template.get("enable_thinking", True)
        return tokens if is_on else (*tokens, *map(ord, "(no thinking)"))

    def reasoning_style_with(self, values: Mapping[str, Any]) -> ReasoningStyle:
        return "think" if values.get("enable_thinking", True) else "none"


@pytest.mark.parametrize(
    ("more", "thinks", "words"),
    [
        ({}, True, {}),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True, {"enable_thinking": "applied"}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False, {"enable_thinking": "applied"}),
        ({"chat_template_kwargs": {"mood": "good"}}, True, {"mood": "ignored"}),
        ({"reasoning_effort": "none"}, False, {"reasoning_effort": "applied"}),
        ({"reasoning_effort": "high"}, True, {"reasoning_effort": "ignored"}),
    ],
)
async def test_the_chat_template_is_told_what_it_has_a_name_for(
    more: dict[str, Any], thinks: bool, words: dict[str, str]
) -> None:
    script = {"France": SAID["France"], "(no thinking)": "Paris at once."}
    async with live(script, tokenizer=Switched()) as server:
        answer = (await send(server, "POST", "/v1/chat/completions", ASKED | more | {"parrot": {}})).json()
    message = answer["choices"][0]["message"]
    assert message["content"] == ("Paris." if thinks else "Paris at once.")
    assert message.get("reasoning_content") == ("A city." if thinks else None)
    told = {name.removeprefix("chat_template_kwargs."): word for name, word in answer["parrot"]["hints"].items()}
    assert told == words


async def test_what_the_template_is_told_has_a_limit(server: Live) -> None:
    asked = ASKED | {"chat_template_kwargs": {"documents": "x" * 100_000}}
    reply = await send(server, "POST", "/v1/chat/completions", asked)
    assert reply.status == 400 and reply.error["param"] == "chat_template_kwargs"


async def test_a_planned_call_is_claimed_by_one_whose_template_is_told_the_same() -> None:
    async with live({"France": SAID["France"], "(no thinking)": "Paris at once."}, tokenizer=Switched()) as server:
        off = {"chat_template_kwargs": {"enable_thinking": False}}
        graph = {"calls": [{"id": "c", "request": ASKED | off}]}
        await send(server, "POST", "/v1/parrot/graphs", graph)
        for more, claimed in (({}, False), (off, True)):
            asked = ASKED | more | {"parrot": {"claim": "c", "nonce": "n"}}
            answer = (await send(server, "POST", "/v1/chat/completions", asked)).json()
            assert answer["parrot"]["claimed"] is claimed
            assert answer["choices"][0]["message"]["content"] == ("Paris at once." if claimed else "Paris.")
