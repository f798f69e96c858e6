"""Embeddings through the manager: shared out, charged, moved from a lost engine, refused."""

from __future__ import annotations

import asyncio

import pytest

from parrot_compat.core.engines.word_vectors import text_vector
from parrot_compat.core.errors import EngineLost, NoEngineForModel, PromptTooLong, QueueFull, TooManyCalls
from parrot_compat.core.manager import Limits
from parrot_compat.core.prompt import Content, Text, Tokens

from .conftest import World

TEXTS = ("red parrots repeat", "a green parrot", "rivers run to the sea")
INPUTS = tuple(map(Text, TEXTS))


async def test_vectors_come_in_the_order_of_the_inputs_from_all_engines(world: World) -> None:
    world.engine("a")
    world.engine("b")
    embedded = await world.manager.embed(INPUTS)
    assert embedded.vectors == tuple(map(text_vector, TEXTS))
    assert embedded.prompt_tokens == sum(map(len, TEXTS))
    assert (await world.manager.embed([Tokens((65, 66))])).vectors == (text_vector("AB"),)


async def test_inputs_are_shared_out_by_load(world: World) -> None:
    engines = [world.engine("a"), world.engine("b")]
    asked = asyncio.ensure_future(world.manager.embed([Text("x" * 100)] * 8))
    for _ in range(5):
        await asyncio.sleep(0)
    assert [engine.load().waiting_tokens for engine in engines] == [400, 400]
    await asked
    world.manager.check()


async def test_each_input_is_an_open_call_of_its_tenant_until_the_answer_is_there(world: World) -> None:
    world.limit(Limits(open_calls_per_tenant=3))
    engine = world.engine()
    engine.stall()
    asked = asyncio.ensure_future(world.manager.embed(INPUTS, tenant="one"))
    await asyncio.sleep(0)
    assert world.manager.open_calls == 3
    world.manager.check()
    with pytest.raises(TooManyCalls):
        await world.manager.embed(INPUTS[:1], tenant="one")
    engine.resume()
    await asked
    assert world.manager.open_calls == 0
    await world.manager.embed(INPUTS, tenant="one")


async def test_inputs_of_a_lost_engine_go_to_another(world: World) -> None:
    first = world.engine("a")
    world.engine("b")
    first.stall()
    asked = asyncio.ensure_future(world.manager.embed(INPUTS * 4))
    for _ in range(5):
        await asyncio.sleep(0)
    first.die()
    assert (await asked).vectors == tuple(map(text_vector, TEXTS)) * 4
    assert [member.info.name for member in world.fleet] == ["b"]


async def test_the_loss_of_the_last_engine_is_told(world: World) -> None:
    engine = world.engine()
    engine.stall()
    asked = asyncio.ensure_future(world.manager.embed(INPUTS))
    await asyncio.sleep(0)
    engine.die()
    with pytest.raises(EngineLost):
        await asked
    assert world.manager.open_calls == 0


async def test_too_long_an_input_is_refused_before_anything_runs(world: World) -> None:
    world.engine(context_tokens=20)
    assert len((await world.manager.embed([Text("x" * 20)])).vectors) == 1
    with pytest.raises(PromptTooLong, match="prompt is too long: 21 tokens"):
        await world.manager.embed([Text("short"), Text("x" * 21)])
    world.manager.check()


async def test_a_reader_that_leaves_stops_the_work(world: World) -> None:
    engine = world.engine()
    engine.stall()
    asked = asyncio.ensure_future(world.manager.embed(INPUTS))
    for _ in range(3):
        await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert engine.load().waiting_tokens == 0 and world.manager.open_calls == 0
    engine.check()


async def test_many_small_inputs_leave_turns_of_the_loop_to_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = world.engine()
    encode, in_turn, most = engine.tokenizer.encode, 0, 0

    def next_turn() -> None:
        nonlocal in_turn
        in_turn = 0

    def counted(content: Content) -> tuple[int, ...]:
        nonlocal in_turn, most
        if isinstance(content, Text):  # the engine is given ids
            if not in_turn:
                asyncio.get_running_loop().call_soon(next_turn)
            in_turn += 1
            most = max(most, in_turn)
        return encode(content)

    monkeypatch.setattr(engine.tokenizer, "encode", counted)
    assert len((await world.manager.embed([Text("small")] * 2048)).vectors) == 2048
    assert most == 32


async def test_an_unknown_model_and_a_closed_manager_embed_nothing(world: World) -> None:
    world.engine()
    with pytest.raises(NoEngineForModel):
        await world.manager.embed(INPUTS, model="other")
    await world.manager.close()
    with pytest.raises(QueueFull):
        await world.manager.embed(INPUTS)
