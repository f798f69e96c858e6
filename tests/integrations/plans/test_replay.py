from __future__ import annotations

from typing import Any

import pytest

from parrot_compat.integrations.plans.replay import Heard, chunks_of, completion_of
from tests.integrations.other_server import completion


def text_of(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_the_chunks_are_the_completion() -> None:
    chunks = list(chunks_of(completion("hello you"), usage=True))
    assert text_of(chunks) == "hello you"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 10
    assert {chunk.id for chunk in chunks} == {"chatcmpl-1"}
    assert not any(chunk.usage for chunk in chunks_of(completion("hello"), usage=False))


def test_tool_calls_are_said_again_too() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chunks = list(chunks_of(completion(None, finish="tool_calls", tool_calls=[call]), usage=False))
    (said,) = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert (said[0].index, said[0].function.name) == (0, "f")


@pytest.mark.parametrize("cut", range(10))
def test_what_has_been_heard_is_not_said_again(cut: int) -> None:
    whole = list(chunks_of(completion("hello you"), usage=False))
    live = [chunk for chunk in whole if chunk.choices[0].finish_reason is None]
    heard = Heard()
    heard.hear(live[0])
    if cut:
        live[1].choices[0].delta.content = "hello you"[:cut]
        heard.hear(live[1])
    assert heard.can_end_as(completion("hello you"))
    rest = list(chunks_of(completion("hello you"), usage=True, heard=heard))
    assert heard.text + text_of(rest) == "hello you"
    assert not any(chunk.choices[0].delta.role for chunk in rest if chunk.choices)


def test_another_text_does_not_continue_what_has_been_heard() -> None:
    heard = Heard()
    for chunk in list(chunks_of(completion("hello"), usage=False))[:2]:
        heard.hear(chunk)
    assert not heard.can_end_as(completion("help"))
    assert heard.can_end_as(completion("hello there"))


def test_a_finished_stream_is_followed_to_its_end() -> None:
    heard = Heard()
    for chunk in chunks_of(completion("hello"), usage=False):
        heard.hear(chunk)
    assert not heard.can_end_as(completion("hello"))


def test_a_completion_is_the_sdks_own_object_without_a_receipt() -> None:
    made = completion_of({**completion("hello"), "parrot": {"claimed": True}})
    assert made.choices[0].message.content == "hello"
    assert made.usage is not None and made.usage.prompt_tokens == 7
    assert "parrot" not in (made.model_extra or {})
