"""Prompts and the values of their inputs: what is too much is refused before it is put together."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from parrot_compat.core import dataflow
from parrot_compat.core.call import Call, CallId, VariableName
from parrot_compat.core.errors import PromptTooLong, TransformFailed
from parrot_compat.core.plan_facts import PlannedCall
from parrot_compat.core.prompt import (
    Bound,
    ChatPrompt,
    Constant,
    Content,
    Input,
    Message,
    Text,
    TextPrompt,
    TokensPrompt,
)
from parrot_compat.core.transform import FirstJson, Truncate

from .conftest import World, make_call

MEGABYTE = "x" * 2**20


def reading(name: str, times: int, id: str = "reads") -> Call:
    """A call whose prompt of a few bytes reads a variable so many times."""
    return Call(id=CallId(id), prompt=TextPrompt((Input(name),) * times), output=VariableName(f"out-{id}"))


def test_characters_are_those_that_are_read_each_as_often_as_it_stands_there() -> None:
    chat = ChatPrompt(
        (
            Message("user", (Constant("abc"), Input("x"), Input("x", (Truncate(1),)))),
            Message("assistant", None),
            Message("user", (Input("y"),)),
        )
    )
    assert Bound(chat, {"x": "1234", "y": "12"}).characters == 3 + 4 + 4 + 2
    assert Bound(TextPrompt((Constant("ab"), Input("x"))), {"x": ""}).characters == 2
    assert Bound(TokensPrompt((1, 2)), {}).characters == 0
    assert Bound(TextPrompt((Constant("a"), Input("x"))), {"x": "b"}).content() == Text("ab")


async def test_a_value_that_is_read_too_often_is_too_long_before_it_is_put_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(prompt: TextPrompt, values: Any) -> Text:
        raise AssertionError("it was put together")

    world.engine(context_tokens=10**9)
    session = world.manager.open_session()
    session.set("book", MEGABYTE)
    monkeypatch.setattr(TextPrompt, "bind", bind)
    with pytest.raises(PromptTooLong, match=f"'reads' reads {33 * 2**20} characters of at most {2**25}"):
        await session.submit(reading("book", 33))
    assert session.tasks() == () and world.manager.open_calls == 0


async def test_a_call_that_waits_for_such_a_value_fails_and_so_does_what_hangs_on_it(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    session.declare("book")
    reads, after = await session.submit_all([reading("book", 33), make_call("after", "a", "out-reads")])
    session.set("book", MEGABYTE)
    assert isinstance(reads.failure, PromptTooLong) and str(reads.failure).startswith("prompt is too long")
    assert after.is_over and world.manager.open_calls == 0
    session.check()


async def test_a_call_may_read_as_much_as_a_request_may_have(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataflow, "MAX_CHARACTERS", 1_000)
    world.engine()
    session = world.manager.open_session()
    session.set("page", "y" * 100)
    assert (await (await session.submit(reading("page", 10))).finished()).text == f"<{'y' * 1_000}>"
    with pytest.raises(PromptTooLong):
        await session.submit(reading("page", 11, "more"))


async def test_the_claim_of_a_planned_call_is_refused_so_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataflow, "MAX_CHARACTERS", 1_000)
    world.engine().stall()
    plan = await world.plan([PlannedCall(call=make_call("c0"), body={})])
    with pytest.raises(PromptTooLong):
        await plan.claim("c0", make_call("mine", "x" * 1_001), "run-1")
    assert plan.tasks["c0"].is_over


@dataclass(frozen=True, slots=True, eq=False)
class Noting:
    """A transform that notes in which threads it is applied."""

    threads: list[int] = field(default_factory=list)

    def apply(self, text: str) -> str:
        self.threads.append(threading.get_ident())
        return text[:2]


@pytest.mark.parametrize("is_known", [True, False])
async def test_transforms_of_long_texts_are_applied_beside_the_loop(world: World, is_known: bool) -> None:
    world.engine()
    session = world.manager.open_session()
    long, short = Noting(), Noting()
    for name, text, noting in (("long", "z" * 100_000, long), ("short", "z" * 100, short)):
        (session.set if is_known else lambda name, _: session.declare(name))(name, text)
        prompt = TextPrompt((Input(name, (noting,)),))  # type: ignore[arg-type]
        task = await session.submit(Call(id=CallId(name), prompt=prompt, output=VariableName(f"out-{name}")))
        if not is_known:
            session.set(name, text)
        assert (await task.finished()).text == "<zz>"
    here = threading.get_ident()
    assert here not in long.threads and set(short.threads) == {here}


@pytest.mark.parametrize("is_known", [True, False])
async def test_transforms_are_applied_once_and_not_those_of_many_calls_in_one_turn_of_the_loop(
    world: World, is_known: bool
) -> None:
    in_turn = most = 0

    def next_turn() -> None:
        nonlocal in_turn
        in_turn = 0

    @dataclass(frozen=True, slots=True, eq=False)
    class Counting(Noting):
        def apply(self, text: str) -> str:
            nonlocal in_turn, most
            if not in_turn:
                asyncio.get_running_loop().call_soon(next_turn)
            in_turn += 1
            most = max(most, in_turn)
            return Noting.apply(self, text)

    world.engine()
    session, transforms = world.manager.open_session(), [Counting() for _ in range(100)]
    (session.set if is_known else lambda name, _: session.declare(name))("page", "z" * 100)
    tasks = await session.submit_all(
        [
            Call(
                id=CallId(f"c{n}"),
                prompt=ChatPrompt((Message("user", (Input("page", (transform,)),)),)),  # type: ignore[arg-type]
                output=VariableName(f"o{n}"),
            )
            for n, transform in enumerate(transforms)
        ]
    )
    if not is_known:
        session.set("page", "z" * 100)
    for task in tasks:
        await task.finished()
    assert [len(transform.threads) for transform in transforms] == [1] * 100
    assert most <= 32


@pytest.mark.parametrize("ends", ["call", "session"])
async def test_the_prompt_of_a_call_that_ends_while_it_waits_for_a_thread_is_never_made(
    world: World, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    engine, may, begun = world.engine(context_tokens=10**6), threading.Event(), list[str]()
    encode = engine.tokenizer.encode

    def gated(content: Content) -> tuple[int, ...]:
        if isinstance(content, Text):
            begun.append(content.text[0])
            assert may.wait(120)
        return encode(content)

    monkeypatch.setattr(engine.tokenizer, "encode", gated)
    session = world.manager.open_session()
    session.declare("page")
    tasks = await session.submit_all([make_call(letter, letter, "page") for letter in "abcdefgh"])
    session.set("page", "x" * 10_000)
    async with asyncio.timeout(120):
        while len(begun) < 2:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.001)
        for task in tasks[1:-1] if ends == "call" else ():
            task.cancel()
        if ends == "session":
            await session.close()
        may.set()
        if ends == "call":
            await asyncio.gather(tasks[0].finished(), tasks[-1].finished())
        await world.manager.close()
    assert sorted(begun) == (list("abh") if ends == "call" else list("ab"))


async def test_a_transform_that_does_not_apply_to_a_long_text_fails_its_call(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    session.declare("page")
    prompt = TextPrompt((Input("page", (FirstJson(),)),))
    task = await session.submit(Call(id=CallId("c"), prompt=prompt, output=VariableName("o")))
    session.set("page", "no JSON " * 5_000)
    with pytest.raises(TransformFailed):
        await task.finished()
    assert world.manager.open_calls == 0
