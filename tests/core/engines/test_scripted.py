"""The scripted engine: the engine contract in both forms, its simulated time, and its troubles on request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.clock import SimulatedClock
from parrot_compat.core.engine import Engine, EngineInfo, Fill, Generate
from parrot_compat.core.engines.scripted import ScriptedEngine, Speed
from parrot_compat.core.errors import EngineError, EngineLost
from parrot_compat.core.prompt import Text
from tests.core.engine_contract import EngineContract, collect, greedy, new_context

SLOW = Speed(prefill_tokens_s=100.0, step_s=0.1, row_share=0.0, chunk_tokens=5)


def about(prompt: str) -> str:
    return f"{len(prompt)} characters, {sum(map(ord, prompt)) % 9973}; "


class TestScriptedOverTokens(EngineContract):
    async def start(self) -> Engine:
        return ScriptedEngine(about, EngineInfo(name="s", model="m", context_tokens=512, max_rows=4))

    @contextlib.contextmanager
    def held(self, engine: Engine) -> Iterator[Callable[[], bool]]:
        assert isinstance(engine, ScriptedEngine)
        engine.stall()
        try:
            yield lambda: engine.load().running > 0
        finally:
            engine.resume()


class TestScriptedOverText(TestScriptedOverTokens):
    holds_contexts = False

    async def start(self) -> Engine:
        return ScriptedEngine(about, EngineInfo(name="s", model="m", context_tokens=512, takes="text"))


class TestScriptedInSimulatedTime(TestScriptedOverTokens):
    async def start(self) -> Engine:
        info = EngineInfo(name="s", model="m", context_tokens=512, max_rows=4)
        return ScriptedEngine(about, info, speed=SLOW, clock=SimulatedClock())


def generate(text: str, max_tokens: int = 100) -> Generate:
    return Generate(context=new_context(), content=Text(text), sampling=ResolvedSampling(max_tokens=max_tokens))


async def test_the_longest_key_found_in_the_prompt_answers() -> None:
    engine = ScriptedEngine({"France": "a country", "capital of France": "Paris"})
    assert (await collect(engine.generate(generate("The capital of France?"))))[0] == "Paris"
    with pytest.raises(EngineError, match="no answer for a prompt that ends in 'The capital of Peru"):
        await collect(engine.generate(generate("The capital of Peru?")))
    engine.check()


async def test_time_is_what_the_speed_says() -> None:
    clock = SimulatedClock()
    engine = ScriptedEngine(lambda prompt: "x" * 20, speed=SLOW, clock=clock)
    await collect(engine.generate(generate("y" * 50)))
    assert clock.now() == pytest.approx(50 / 100 + 20 * 0.1)


async def test_prompts_are_computed_one_after_the_other_and_answers_side_by_side() -> None:
    clock = SimulatedClock()
    engine = ScriptedEngine(lambda prompt: "x" * 20, speed=SLOW, clock=clock)
    await asyncio.gather(*(collect(engine.generate(generate(str(row) * 50))) for row in range(4)))
    assert clock.now() == pytest.approx(4 * 50 / 100 + 20 * 0.1)
    engine.check()


async def test_a_prefix_that_was_computed_takes_no_time_again() -> None:
    clock = SimulatedClock()
    engine = ScriptedEngine(lambda prompt: "", speed=SLOW, clock=clock)
    await collect(engine.generate(generate("y" * 320)))
    begun_s = clock.now()
    _, chunks = await collect(engine.generate(generate("y" * 320 + "z" * 20)))
    assert chunks[-1].usage is not None and chunks[-1].usage.cached_tokens == 320
    assert clock.now() - begun_s == pytest.approx(20 / 100)


async def test_rows_beyond_the_limit_wait() -> None:
    clock = SimulatedClock()
    info = EngineInfo(name="s", model="m", context_tokens=512, max_rows=2)
    engine = ScriptedEngine(lambda prompt: "x" * 10, info, speed=Speed(step_s=0.1, row_share=0.0), clock=clock)
    work = [asyncio.create_task(collect(engine.generate(generate(str(row))))) for row in range(5)]
    await clock.sleep(0.05)
    assert (engine.load().running, engine.load().waiting) == (2, 3)
    await asyncio.gather(*work)
    assert clock.now() == pytest.approx(3 * 10 * 0.1)
    engine.check()


async def test_the_next_generate_fails_where_it_was_told_to() -> None:
    engine = ScriptedEngine(lambda prompt: "abcdefghijklm")
    engine.fail_next(EngineError("out of paper"), after_tokens=10)
    said = ""
    with pytest.raises(EngineError, match="out of paper"):
        async for chunk in engine.generate(generate("x")):
            said += chunk.text
    assert said == "abcdefghij"
    assert (await collect(engine.generate(generate("x"))))[0] == "abcdefghijklm"
    engine.check()


async def test_death_reaches_rows_that_run_wait_and_stall() -> None:
    info = EngineInfo(name="s", model="m", context_tokens=512, max_rows=1)
    engine = ScriptedEngine(lambda prompt: "abc", info)
    engine.stall()
    work = [asyncio.create_task(collect(engine.generate(generate(str(row))))) for row in range(3)]
    fill = asyncio.create_task(engine.fill(Fill(context=new_context(), content=Text("x"))))
    await asyncio.sleep(0.01)
    engine.die("the power went")
    outcomes = await asyncio.gather(*work, fill, return_exceptions=True)
    assert all(isinstance(outcome, EngineLost) and "the power went" in str(outcome) for outcome in outcomes)
    engine.check()


async def test_a_stalled_engine_goes_on_where_it_stood() -> None:
    engine = ScriptedEngine(lambda prompt: "abcdefghijklmnopqrst")
    chunks = engine.generate(generate("x"))
    first = await anext(chunks)
    engine.stall()
    rest = asyncio.create_task(collect(chunks))
    await asyncio.sleep(0.01)
    assert not rest.done()
    engine.resume()
    text, _ = await rest
    assert first.text + text == "abcdefghijklmnopqrst"


async def test_a_row_that_is_cancelled_while_it_waits_leaves_no_trace() -> None:
    info = EngineInfo(name="s", model="m", context_tokens=512, max_rows=1)
    engine = ScriptedEngine(lambda prompt: "abc", info)
    engine.stall()
    work = [asyncio.create_task(collect(engine.generate(generate(str(row))))) for row in range(3)]
    await asyncio.sleep(0.01)
    work[1].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work[1]
    engine.resume()
    assert [text for text, _ in await asyncio.gather(work[0], work[2])] == ["abc", "abc"]
    engine.check()


async def test_who_may_not_stop_says_it_again() -> None:
    engine = ScriptedEngine(lambda prompt: "abc")
    text, _ = await collect(engine.generate(Generate(context=new_context(), content=Text("x"), sampling=greedy(7))))
    assert text == "abcabca"
