"""A model whose engines are all lost and are being started again: calls wait for it, and not without end."""

from __future__ import annotations

import pytest

from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import EngineLost, ModelAway, PromptTooLong
from parrot_compat.core.fleet import LONGEST_AWAY_S
from parrot_compat.core.prompt import Text

from .conftest import SPEED, World, echo, make_call

INFO = EngineInfo(name="a", model="m", context_tokens=4096)


def lose(world: World, *outages_s: tuple[float, float]) -> None:
    """The engine of "m" joins and is lost; between these times it does not start again."""

    def made() -> ScriptedEngine:
        return ScriptedEngine(echo, INFO, speed=SPEED, clock=world.clock)

    async def restart() -> ScriptedEngine:
        if any(begin_s <= world.clock.now() < end_s for begin_s, end_s in outages_s):
            raise OSError("no such device")
        return made()

    engine = made()
    member = world.fleet.add(engine, engine.tokenizer, restart=restart)
    world.fleet.lost(member, EngineLost("the power went"))
    world.fleet.check()


async def test_calls_wait_for_an_engine_that_is_back_in_time(world: World) -> None:
    lose(world, (0, 0.8 * LONGEST_AWAY_S))
    task = await world.manager.open_session().submit(make_call("c"))
    assert (await task.finished()).text == "<c>"
    await world.clock.sleep(2 * LONGEST_AWAY_S)  # nothing is left of the patience that was had with it
    assert world.fleet.away("m") is None and len(world.manager.models()[0].engines) == 1
    world.manager.check()


async def test_calls_that_wait_for_longer_fail_and_say_which_engine_is_lost_since_when(world: World) -> None:
    lose(world, (0, 2 * LONGEST_AWAY_S))
    session = world.manager.open_session()
    session.declare("late")
    waits, reads = await session.submit_all([make_call("c"), make_call("d", "d", "late")])
    with pytest.raises(ModelAway, match=r"'m' has no engine: 'a' was lost 300 s ago \(the power went\)"):
        await waits.finished()
    assert world.clock.now() == pytest.approx(LONGEST_AWAY_S)
    assert not reads.is_over
    session.set("late", "!")
    with pytest.raises(ModelAway):
        await reads.finished()
    world.manager.check()


async def test_new_calls_are_refused_at_once_until_it_is_back(world: World) -> None:
    lose(world, (0, 2 * LONGEST_AWAY_S))
    await world.clock.sleep(LONGEST_AWAY_S + 1)
    session = world.manager.open_session()
    with pytest.raises(ModelAway):
        await session.submit(make_call("c"))
    with pytest.raises(ModelAway):
        await world.manager.embed([Text("c")])
    assert world.manager.open_calls == 0 and [card.name for card in world.manager.models()] == ["m"]
    await world.clock.sleep(LONGEST_AWAY_S + 60)  # it is still tried, twice a minute
    assert (await (await session.submit(make_call("c"))).finished()).text == "<c>"
    world.manager.check()


async def test_a_second_loss_is_waited_for_as_long_as_the_first(world: World) -> None:
    lose(world, (0, 0.5 * LONGEST_AWAY_S), (0.9 * LONGEST_AWAY_S, 1.3 * LONGEST_AWAY_S))
    await world.clock.sleep(0.9 * LONGEST_AWAY_S)
    world.fleet.lost(world.fleet.member("a"), EngineLost("again"))
    task = await world.manager.open_session().submit(make_call("c"))
    assert (await task.finished()).text == "<c>"


async def test_other_models_are_served_meanwhile(world: World) -> None:
    lose(world, (0, 2 * LONGEST_AWAY_S))
    world.engine("b", model="n")
    await world.clock.sleep(LONGEST_AWAY_S + 1)
    call = make_call("c")
    task = await world.manager.open_session().submit(type(call)(id=call.id, prompt=call.prompt, output="o", model="n"))
    assert (await task.finished()).engine == "b"
    world.fleet.check()


async def test_an_embedding_does_not_wait_for_an_engine_and_says_that_it_may_come_back(world: World) -> None:
    lose(world, (0, 1))
    with pytest.raises(ModelAway, match="being started again"):
        await world.manager.embed([Text("c")])
    assert world.manager.open_calls == 0


async def test_a_call_that_only_the_lost_engine_has_room_for_waits_no_longer_either(world: World) -> None:
    lose(world, (0, 2 * LONGEST_AWAY_S))
    world.engine("small", context_tokens=128)
    session = world.manager.open_session(ttl_s=60)
    task = await session.submit(make_call("c", "x" * 200))
    await world.clock.sleep(LONGEST_AWAY_S - 1)
    assert not task.is_over
    await world.clock.sleep(2)
    assert isinstance(task.failure, PromptTooLong) and world.manager.open_calls == 0
    assert [card.context_tokens for card in world.manager.models()] == [128]
    with pytest.raises(PromptTooLong):
        await session.submit(make_call("d", "x" * 200))
    assert (await (await session.submit(make_call("e"))).finished()).engine == "small"
    await world.clock.sleep(LONGEST_AWAY_S + 60)  # the large one is back
    again = await world.manager.open_session().submit(make_call("c", "x" * 200))
    assert (await again.finished()).engine == "a"
    assert session.is_closed
    world.manager.check()
