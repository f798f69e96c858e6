"""Rendering: which prompts are encoded beside the event loop, how many at a time, and which never."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import QueueFull
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.prompt import Bound, Chat, ChatPrompt, Constant, Content, Input, Message, Text, Tokens
from parrot_compat.core.rendering import Rendered, Renderer
from parrot_compat.core.transform import parse_transforms

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


def test_a_prompt_is_large_where_its_regexes_take_long_however_short_its_text_is() -> None:
    def reading(pattern: str, times: int = 1) -> Bound:
        read = Input("found", tuple(parse_transforms([{"regex": pattern}] * times)))
        return Bound(ChatPrompt((Message("user", (read,)),)), {"found": "ab" * 2_000})

    assert not Renderer.is_large(reading("[ab]+"))
    assert Renderer.is_large(reading("((a|b){1,30}){1,30}[zy]"))
    assert Renderer.is_large(reading("(ab){1,9}", times=16)) > Renderer.is_large(reading("(ab){1,9}"))


near_the_limit = st.integers(0, 100) | st.integers(8_000, 8_200)


@given(near_the_limit, near_the_limit, near_the_limit)
def test_a_prompt_with_holes_is_as_large_as_what_it_says_in_the_end(said: int, value: int, described: int) -> None:
    messages = (Message("user", (Constant("x" * said), Input("v")), {"name": "me"}), Message("assistant", None))
    bound = Bound(ChatPrompt(messages, (tool("d" * described),), {"thinking": True}), {"v": "v" * value})
    assert Renderer.is_large(bound) == Renderer.is_large(bound.content())


class Gated(CharTokenizer):
    """It encodes when it is let, and notes what, and how much at a time."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.begun: list[str] = []
        self.most = 0
        self._running = 0
        self._lock = threading.Lock()

    def encode(self, content: Content) -> tuple[int, ...]:
        assert isinstance(content, Text)
        with self._lock:
            self.begun.append(content.text[0])
            self._running += 1
            self.most = max(self.most, self._running)
        assert self.may.wait(120)
        with self._lock:
            self._running -= 1
        return super().encode(content)

    async def has_begun(self, count: int) -> None:
        async with asyncio.timeout(120):
            while len(self.begun) < count:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.001)


@pytest.fixture
async def tokenizer() -> AsyncIterator[Gated]:
    tokenizer = Gated()
    yield tokenizer
    tokenizer.may.set()


@pytest.fixture
async def renderer(tokenizer: Gated) -> AsyncIterator[Renderer]:
    fleet = Fleet()
    fleet.add(ScriptedEngine({}, EngineInfo(name="a", model="m", context_tokens=10**6)), tokenizer)
    renderer = Renderer(fleet)
    yield renderer
    tokenizer.may.set()
    await renderer.close("the test is over")
    await fleet.close()


def large(renderer: Renderer, letters: str) -> list[asyncio.Task[Rendered]]:
    return [asyncio.create_task(renderer.render_any(Text(each * 10_000), "m", "")) for each in letters]


async def test_no_more_than_two_large_prompts_are_made_at_a_time(renderer: Renderer, tokenizer: Gated) -> None:
    renders = large(renderer, "abcdefghij")
    await tokenizer.has_begun(2)
    tokenizer.may.set()
    assert [one.prompt_tokens for one in await asyncio.gather(*renders)] == [10_000] * 10
    assert tokenizer.most == 2 and sorted(tokenizer.begun) == list("abcdefghij")


async def test_a_large_prompt_that_nobody_waits_for_any_more_is_never_made(
    renderer: Renderer, tokenizer: Gated
) -> None:
    renders = large(renderer, "abcdefghij")
    await tokenizer.has_begun(2)
    for one in renders[1:-1]:  # of those that are being made one too
        one.cancel()
    tokenizer.may.set()
    await asyncio.wait(renders)
    assert [one.cancelled() for one in renders] == [False, *[True] * 8, False]
    assert sorted(tokenizer.begun) == list("abj")


async def test_at_the_close_what_is_being_made_is_made_and_what_waits_hears_of_it(
    renderer: Renderer, tokenizer: Gated
) -> None:
    renders = large(renderer, "abcd")
    await tokenizer.has_begun(2)
    closing = asyncio.create_task(renderer.close("it shuts down"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not closing.done()
    tokenizer.may.set()
    await closing
    made = await asyncio.gather(*renders, *large(renderer, "e"), return_exceptions=True)
    assert [isinstance(one, Rendered) for one in made] == [True, True, False, False, False]
    assert all(isinstance(one, QueueFull) and str(one) == "it shuts down" for one in made[2:])
    assert renderer.render(Text("small"), "m", "").prompt_tokens == 5
    await renderer.close("once more")
