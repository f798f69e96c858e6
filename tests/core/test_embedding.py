"""Embeddings through the manager: shared out, charged, moved from a lost engine, refused."""

from __future__ import annotations

import asyncio

import pytest

from parrot_compat.core.engine import Embed, Embedded, EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.engines.word_vectors import text_vector
from parrot_compat.core.errors import BadPrompt, EngineLost, NoEngineForModel, PromptTooLong, QueueFull, TooManyCalls
from parrot_compat.core.manager import Limits
from parrot_compat.core.prompt import Content, Text, Tokens

from .conftest import SPEED, World, echo

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


# ---- the window of an engine -----------------------------------------------------------------------------


class Counting(ScriptedEngine):
    """It notes what it is asked for, and how much of it at a time."""

    def __init__(self, world: World, name: str = "a", **facts: object) -> None:
        info = EngineInfo(name=name, model="m", context_tokens=4096, **facts)  # type: ignore[arg-type]
        super().__init__(echo, info, speed=SPEED, clock=world.clock)
        self.inside = self.most = 0
        self.asked: list[int] = []
        self.answered: list[str] = []
        world.fleet.add(self, self.tokenizer)

    async def embed(self, embed: Embed) -> Embedded:
        self.asked.append(len(embed.inputs))
        self.inside += len(embed.inputs)
        self.most = max(self.most, self.inside)
        try:
            texts = [self.tokenizer.decode(self.tokenizer.encode(content)) for content in embed.inputs]
            if "bad" in texts:
                raise BadPrompt("it cannot be read")
            embedded = await super().embed(embed)
            self.answered += texts
            return embedded
        finally:
            self.inside -= len(embed.inputs)


async def test_an_engine_never_has_more_inputs_than_its_window_and_all_are_answered_in_order(world: World) -> None:
    engine = Counting(world, max_rows=8)
    texts = [f"text {n}" for n in range(2_000)]
    asked = [world.manager.embed(list(map(Text, texts)), tenant=tenant) for tenant in ("one", "one", "two")]
    for embedded in await asyncio.gather(*asked):
        assert embedded.vectors == tuple(map(text_vector, texts))
        assert embedded.prompt_tokens == sum(map(len, texts))
    assert engine.most == 16 and engine.asked == [1] * 6_000
    world.manager.check()


async def test_a_short_request_beside_a_long_one_of_another_tenant_has_every_other_turn(world: World) -> None:
    engine = Counting(world, max_rows=2)
    long = asyncio.ensure_future(world.manager.embed([Text("a")] * 400, tenant="one"))
    while len(engine.answered) < 20:  # noqa: ASYNC110  # no event tells
        await asyncio.sleep(0)
    begun = len(engine.answered)
    await world.manager.embed([Text("b")] * 50, tenant="two")
    taken = engine.answered[begun:]
    assert taken.count("b") == 50 and taken.count("a") <= 50 + 2 * 4, "beside it, and what was inside before"
    assert not long.done()
    await long
    world.manager.check()


async def test_a_request_of_many_inputs_is_one_to_an_engine_that_takes_text(world: World) -> None:
    engine = Counting(world, takes="text", max_rows=2)
    assert (await world.manager.embed(INPUTS * 10)).vectors == tuple(map(text_vector, TEXTS)) * 10
    assert engine.asked == [30]


async def test_what_a_lost_engine_had_answered_is_not_asked_again(world: World) -> None:
    first, second = Counting(world, "a", max_rows=1), Counting(world, "b", max_rows=1)
    asked = asyncio.ensure_future(world.manager.embed(INPUTS * 20))
    while len(first.answered) < 10:  # noqa: ASYNC110  # no event tells
        await asyncio.sleep(0)
    first.die()
    assert (await asked).vectors == tuple(map(text_vector, TEXTS)) * 20
    assert len(first.answered) + len(second.answered) == 60 and len(second.asked) <= 51
    assert len(first.asked) <= len(first.answered) + 2, "it is asked for no more once it is lost"


@pytest.mark.parametrize("ends", ["cancel", "error"])
async def test_a_request_that_ends_early_leaves_the_whole_window_to_others(world: World, ends: str) -> None:
    engine = Counting(world, max_rows=2)
    engine.stall()
    inputs = [Text("good")] * 100
    asked = asyncio.ensure_future(world.manager.embed([*inputs, Text("bad")] if ends == "error" else inputs))
    for _ in range(20):
        await asyncio.sleep(0)
    assert engine.inside == 4
    if ends == "cancel":
        asked.cancel()
    engine.resume()
    with pytest.raises(asyncio.CancelledError if ends == "cancel" else BadPrompt):
        await asked
    assert engine.inside == 0 and world.manager.open_calls == 0
    engine.most = 0
    assert len((await world.manager.embed(inputs)).vectors) == 100 and engine.most == 4


async def test_inputs_that_wait_for_a_window_count_as_load_of_its_engine(world: World) -> None:
    engines = [Counting(world, name, max_rows=1) for name in "ab"]
    engines[0].stall()
    held = [asyncio.ensure_future(world.manager.embed([Text("x" * 100)] * 40))]
    for _ in range(20):
        await asyncio.sleep(0)
    while len(engines[1].answered) < 20:  # noqa: ASYNC110  # no event tells
        await asyncio.sleep(0)
    before = len(engines[1].asked)
    held.append(asyncio.ensure_future(world.manager.embed([Text("y" * 100)] * 10)))
    await held[1]
    assert len(engines[1].asked) - before == 10, "the other has eighteen in line"
    engines[0].resume()
    await held[0]
