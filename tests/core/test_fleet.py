"""The fleet: who may join, what is learned of members, and how they go."""

from __future__ import annotations

import asyncio

import pytest

from parrot_compat.core.engine import EngineInfo, EngineLoad
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import EngineError, EngineLost, ModelRefused
from parrot_compat.core.events import CallPlaced, EngineGone
from parrot_compat.core.prefix import BLOCK_TOKENS
from parrot_compat.core.task import Task

from .conftest import SPEED, World, echo, make_call


async def test_a_name_is_taken_once(world: World) -> None:
    world.engine("a")
    with pytest.raises(EngineError, match="named 'a' is in the fleet already"):
        world.engine("a")


async def test_an_engine_that_takes_tokens_needs_a_tokenizer(world: World) -> None:
    with pytest.raises(ModelRefused, match="no tokenizer came with model 'm'"):
        world.fleet.add(ScriptedEngine({}, EngineInfo(name="a", model="m", context_tokens=9)))
    world.engine("b")
    world.fleet.add(ScriptedEngine({}, EngineInfo(name="a", model="m", context_tokens=9)))  # shares the model's
    world.fleet.check()


async def test_context_ids_are_never_used_twice(world: World) -> None:
    assert len({world.fleet.draw_context() for _ in range(100)}) == 100


async def test_engines_are_closed_side_by_side(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may need all of its grace, and whoever stops a server does not wait for ever."""
    for name in ("a", "b", "c"):
        world.engine(name)
    all_closing = asyncio.Barrier(3)

    async def close(engine: ScriptedEngine) -> None:
        await all_closing.wait()

    monkeypatch.setattr(ScriptedEngine, "close", close)
    async with asyncio.timeout(60):
        await world.fleet.close()
    monkeypatch.undo()
    assert not list(world.fleet)


async def test_losing_an_engine_twice_is_losing_it_once(world: World) -> None:
    world.engine("a")
    member = world.fleet.member("a")
    world.fleet.lost(member, EngineLost("x"))
    world.fleet.lost(member, EngineLost("y"))
    (gone,) = world.of(EngineGone)
    assert isinstance(gone, EngineGone) and gone.reason == "x" and not gone.is_restarting


async def test_the_death_of_an_idle_engine_is_noticed_at_once(world: World) -> None:
    world.engine("a", returns=True)
    world.engine("b")
    await world.clock.sleep(1)
    for member in world.fleet:
        assert isinstance(member.engine, ScriptedEngine)
        member.engine.die("the power went")
    await world.clock.sleep(1)
    assert [event.engine for event in world.of(EngineGone) if isinstance(event, EngineGone)] == ["a", "b"]
    assert [member.info.name for member in world.fleet] == ["a"]  # it came back
    world.fleet.check()


async def test_the_first_model_stays_the_first_when_its_engine_comes_back(world: World) -> None:
    first = world.engine("a", model="big", returns=True)
    world.engine("b", model="small")
    first.die("the power went")
    await world.clock.sleep(1)
    assert [member.info.name for member in world.fleet] == ["b", "a"]
    assert world.fleet.models() == ("big", "small") and world.fleet.model(None) == "big"
    world.fleet.lost(world.fleet.member("b"), EngineLost("for good"))
    assert world.fleet.models() == ("big",)
    world.fleet.check()


async def test_a_server_that_comes_back_with_another_model_serves_that_one(world: World) -> None:
    """`--upstream` without a model serves what the upstream lists, which a restart may change."""
    first = world.engine("a", model="old")

    async def restart() -> ScriptedEngine:
        info = EngineInfo(name="a", model="new", context_tokens=4096)
        return ScriptedEngine(echo, info, speed=SPEED, clock=world.clock)

    member = world.fleet.member("a")
    member.restart = restart
    first.die("the power went")
    await world.clock.sleep(1)
    assert world.fleet.models() == ("new",) and world.fleet.model(None) == "new"
    assert [model.name for model in world.manager.models()] == ["new"]
    world.fleet.check()


async def test_what_others_have_an_engine_do_keeps_nothing_of_ours_from_it(world: World) -> None:
    engine = world.engine("a", max_rows=2)
    member = world.fleet.member("a")
    full = EngineLoad(running=2, waiting=2046)
    engine.load = lambda: full  # type: ignore[method-assign]
    assert member.view().rows == 2048 and member.free_rows == 2
    task = await world.manager.open_session().submit(make_call("c"))
    async with asyncio.timeout(30):
        assert (await task.finished()).text == "<c>"


async def test_speeds_are_learned_from_what_is_seen(world: World) -> None:
    world.engine("a")
    member = world.fleet.member("a")
    session = world.manager.open_session()
    for n in range(30):
        await (await session.submit(make_call(f"c{n}", chr(97 + n) * 200, max_tokens=20))).finished()
    assert member.prefill_tokens_s == pytest.approx(1000, rel=0.3)
    assert member.step_s == pytest.approx(0.01, rel=0.3)
    assert member.call_s == pytest.approx(0.4, rel=0.3)
    member.check()


async def test_an_engine_is_no_home_of_what_its_cache_has_dropped_since(world: World) -> None:
    first = world.engine("a", max_rows=1, capacity_tokens=4 * BLOCK_TOKENS)
    world.engine("b", max_rows=1, capacity_tokens=4 * BLOCK_TOKENS)
    session = world.manager.open_session()

    async def begin(name: str, letter: str) -> Task:
        await world.clock.sleep(1)  # whoever has finished has left its engine
        for member in world.fleet:
            member.prefill_tokens_s = 1000.0  # what was learned makes no difference
        return await session.submit(make_call(name, letter * (4 * BLOCK_TOKENS + 1)))

    for letter in "pf":
        await (await begin(letter, letter)).finished()
    first.stall()
    busy = await begin("busy", "g")
    await (await begin("elsewhere", "p")).finished()
    first.resume()
    await busy.finished()
    usage = (await (await begin("again", "p")).finished()).usage
    placed = [event.engine for event in world.of(CallPlaced) if isinstance(event, CallPlaced)]
    assert placed == ["a", "a", "a", "b", "b"] and usage.cached_tokens == 4 * BLOCK_TOKENS
    world.fleet.check()


async def test_a_fleet_that_is_closed_takes_no_engine(world: World) -> None:
    await world.fleet.close()
    with pytest.raises(EngineError, match="the fleet is closed"):
        world.engine("a")
