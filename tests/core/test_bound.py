"""Prompts and the values of their inputs: what is too much is refused before it is put together."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from parrot_compat.core import dataflow
from parrot_compat.core.call import Call, CallId, VariableName
from parrot_compat.core.errors import PromptTooLong, TransformFailed
from parrot_compat.core.plan_facts import PlannedCall
from parrot_compat.core.prompt import Bound, ChatPrompt, Constant, Input, Message, Text, TextPrompt, TokensPrompt
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


@dataclass(frozen=True, slots=True)
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
