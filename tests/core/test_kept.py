"""What an open session keeps of the requests of its planned calls."""

from __future__ import annotations

from typing import Any

import pytest

from parrot_compat.core.errors import AlreadySettled, SessionFull
from parrot_compat.core.kept import size_of_body
from parrot_compat.core.manager import Limits
from parrot_compat.core.plan_facts import PlannedCall
from parrot_compat.core.prompt import ChatPrompt, Constant, Message

from .conftest import World, make_call


def planned(id: str, body: dict[str, Any]) -> PlannedCall:
    return PlannedCall(call=make_call(id), body=body)


def test_all_that_a_body_holds_counts_but_the_texts_that_its_prompt_has() -> None:
    text = "what is asked " * 1_000
    prompt = ChatPrompt((Message("user", (Constant(text),)),))
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "model": None}
    assert 300 < size_of_body(body, prompt) < 2_000
    assert size_of_body(body, ChatPrompt(())) > len(text)
    for more in ("x" * 10_000, [0] * 1_000, [[]] * 1_000, {str(n): {} for n in range(100)}, ["雪" * 5_000]):
        size = size_of_body(body | {"metadata": more}, prompt)
        assert size > 5_000, more


async def test_bodies_of_planned_calls_are_kept_until_their_plan_ends(world: World) -> None:
    world.limit(Limits(kept_bytes_per_tenant=100_000))
    world.engine().stall()
    session = world.manager.open_session("t")
    plan = await world.manager.plan(session, [planned("a", {"metadata": "x" * 60_000})])
    assert 60_000 < session.kept.size < 62_000
    with pytest.raises(SessionFull, match="keep 60"):
        await world.manager.plan(session, [planned("b", {"metadata": "x" * 60_000})])
    assert len(session.tasks()) == 1
    world.manager.check()
    plan.close()
    assert session.kept.size < 10_000, "the call that was cancelled stays"
    world.manager.check()
    await world.manager.plan(session, [planned("b", {"metadata": "x" * 60_000})])
    await session.close()
    world.manager.check()
    assert world.manager.has_room("t")


async def test_a_plan_that_is_refused_keeps_nothing(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    session.set("out-a", "is there")
    kept = session.kept.size
    with pytest.raises(AlreadySettled):
        await world.manager.plan(session, [planned("a", {"metadata": "x" * 60_000})])
    assert session.kept.size == kept
    world.manager.check()
