"""An engine in another process: the same contract, and what happens when either end goes away."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from parrot_compat.core.call import Call, CallId, ResolvedSampling, Sampling, VariableName
from parrot_compat.core.engine import Chunk, ContextId, Engine, Fill, Generate
from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.engines.process import ProcessEngine
from parrot_compat.core.engines.silence import Silence
from parrot_compat.core.errors import EngineError, EngineLost, ModelRefused
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.core.member import Mortal
from parrot_compat.core.prompt import Constant, TextPrompt, Tokens
from tests.core.engine_contract import EngineContract, collect

ROOT = Path(__file__).parent.parent.parent.parent
CHILD = (sys.executable, "-m", "tests.core.engines.child")
PAGED = (sys.executable, "-m", "tests.gpu.paged_service")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where `-m tests...` is found


def child(model: str = "counts", **options: Any) -> ProcessEngine:
    return ProcessEngine(CHILD, {"name": "child", "model": model}, **options)


def count(context: int, tokens: int) -> Generate:
    return Generate(context=ContextId(context), content=Tokens((1, 2, 3)), sampling=ResolvedSampling(max_tokens=tokens))


async def real_engine() -> Engine:
    """The whole service in the child; only the model is a runner of pages."""
    engine = ProcessEngine(PAGED, {"name": "child", "model": "paged"})
    await engine.start()
    return engine


@pytest.fixture(scope="module")
async def shared_engine() -> AsyncIterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        engine = await real_engine()
    yield engine
    await engine.close()


class TestProcessEngine(EngineContract):
    async def start(self) -> Engine:
        return await real_engine()

    @pytest.fixture
    async def engine(self, shared_engine: Engine) -> Engine:
        return shared_engine


def is_there(engine: ProcessEngine) -> bool:
    assert engine.pid is not None
    try:
        os.kill(engine.pid, 0)
    except ProcessLookupError:
        return False
    return True


# ---- beginning -----------------------------------------------------------------------------------------


async def test_start_tells_what_the_engine_is() -> None:
    engine = child()
    with pytest.raises(EngineLost, match="not been started"):
        assert engine.info
    info = await engine.start()
    assert info == engine.info and info.name == "child"
    assert engine.load().free_tokens == 1024
    await engine.close()
    assert not is_there(engine)


async def test_answers_reach_their_callers_in_order() -> None:
    engine = child()
    await engine.start()
    answers = await asyncio.gather(*(collect(engine.generate(count(n, n + 1))) for n in range(20)))
    assert [text.split() for text, _ in answers] == [[str(token) for token in range(n + 1)] for n in range(20)]
    await engine.close()


async def test_what_is_poured_is_what_would_be_iterated() -> None:
    engine = child()
    await engine.start()
    poured: list[list[Chunk]] = [[] for _ in range(8)]

    async def pour(row: int) -> None:
        await engine.pour(count(row, 5), lambda chunk: poured[row].append(chunk) is None)

    await asyncio.gather(*map(pour, range(8)))
    _, iterated = await collect(engine.generate(count(99, 5)))
    assert len(iterated) == 5 and poured == [iterated] * 8
    await engine.close()


async def test_who_wants_no_more_is_given_no_more_and_one_that_fails_fails_alone() -> None:
    engine = child()
    await engine.start()
    taken: list[Chunk] = []
    others: list[Chunk] = []

    def enough(chunk: Chunk) -> bool:
        taken.append(chunk)
        return len(taken) < 2

    def fail(chunk: Chunk) -> bool:
        raise ZeroDivisionError(chunk.text)

    failing = asyncio.create_task(engine.pour(count(2, 5), fail))
    other = asyncio.create_task(engine.pour(count(3, 5), lambda chunk: others.append(chunk) is None))
    await engine.pour(count(1, 5), enough)
    with pytest.raises(ZeroDivisionError, match="0"):
        await failing
    await other
    await engine.free(ContextId(1))  # the child has answered all that came before
    assert len(taken) == 2 and len(others) == 5
    await engine.close()


async def test_who_pours_is_told_of_a_loss_and_may_leave() -> None:
    engine = child("deaf")
    await engine.start()
    leaving, waiting = [asyncio.create_task(engine.pour(count(row, 5), lambda _: True)) for row in range(2)]
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineLost, match="signal 9"):
        await waiting
    await engine.close()


async def test_a_refused_model_is_refused_with_the_childs_words() -> None:
    engine = child("refused")
    with pytest.raises(ModelRefused, match="family that is not served"):
        await engine.start()
    assert not is_there(engine)


async def test_a_child_that_ends_at_once_is_lost_with_its_status() -> None:
    with pytest.raises(EngineLost, match="ended with status 7 before its model was loaded"):
        await ProcessEngine([sys.executable, "-c", "raise SystemExit(7)"], {"name": "child"}).start()


async def test_a_child_that_cannot_be_understood_is_ended() -> None:
    engine = child("babbles")
    with pytest.raises(EngineLost, match="signal 9"):
        await engine.start()
    assert not is_there(engine)


async def test_a_command_that_is_not_there_cannot_be_started() -> None:
    with pytest.raises(EngineError, match="cannot be started"):
        await ProcessEngine(["/nowhere/at/all"], {"name": "child"}).start()


async def test_leaving_while_it_starts_ends_the_child() -> None:
    engine = child()
    start = asyncio.create_task(engine.start())
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not is_there(engine)


# ---- ending --------------------------------------------------------------------------------------------


async def test_a_killed_child_is_lost_to_everybody_who_waits() -> None:
    engine = child("deaf")
    await engine.start()
    work = [asyncio.create_task(collect(engine.generate(count(n, 20)))) for n in range(8)]
    fill = asyncio.create_task(engine.fill(Fill(context=ContextId(99), content=Tokens((5, 6)))))
    await asyncio.sleep(0)
    assert engine.load().waiting == 9
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(*work, fill, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineLost] * 9
    assert "was killed by signal 9" in str(outcomes[0])
    with pytest.raises(EngineLost, match="signal 9"):
        await engine.free(ContextId(1))
    assert engine.load().waiting == 0
    await engine.close()


async def test_a_child_that_dies_while_nobody_asks_is_noticed() -> None:
    engine = child()
    await engine.start()
    assert engine.pid is not None and isinstance(engine, Mortal)
    noticed = asyncio.create_task(engine.lost())
    os.kill(engine.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        assert "was killed by signal 9" in str(await noticed)
    await engine.close()


async def test_a_new_engine_takes_over_from_a_lost_one() -> None:
    lost = child("deaf")
    await lost.start()
    assert lost.pid is not None
    os.kill(lost.pid, signal.SIGKILL)
    with pytest.raises(EngineLost):
        await collect(lost.generate(count(1, 3)))
    engine = child()
    await engine.start()
    assert (await collect(engine.generate(count(1, 3))))[0] == "0 1 2 "
    await engine.close()
    await lost.close()


async def test_a_child_that_does_not_end_by_itself_is_ended() -> None:
    engine = child("deaf", grace_s=0.2)
    await engine.start()
    work = asyncio.create_task(collect(engine.generate(count(1, 3))))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(EngineLost, match="closed"):
        await work
    assert not is_there(engine)


async def test_a_child_that_no_signal_reaches_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = child("deaf", grace_s=0.2)
    await engine.start()
    assert engine.pid is not None
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_kill", lambda: None)
        work = asyncio.create_task(collect(engine.generate(count(1, 3))))
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await engine.close()
    with pytest.raises(EngineLost, match="closed"):
        await work
    assert is_there(engine)
    engine._kill()
    await engine.close()


async def test_a_command_that_cannot_be_sent_ends_the_engine_and_not_its_writer_alone() -> None:
    engine = child()
    await engine.start()
    async with asyncio.timeout(60):
        with pytest.raises(EngineLost, match="signal 9"):
            await engine.fill(Fill(context=ContextId(1), content=Tokens((lambda: 1,))))  # type: ignore[arg-type]
    await engine.close()


async def test_a_stopped_child_never_blocks_the_event_loop() -> None:
    engine = child("counts", grace_s=0.2)
    await engine.start()
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGSTOP)
    prompt = Tokens(tuple(range(1_000_000)))  # much more than the socket holds
    fills = [asyncio.create_task(engine.fill(Fill(context=ContextId(n), content=prompt))) for n in range(3)]
    async with asyncio.timeout(60):
        await asyncio.sleep(0)
        await engine.close()
    assert [type(outcome) for outcome in await asyncio.gather(*fills, return_exceptions=True)] == [EngineLost] * 3


def become_impatient(engine: ProcessEngine) -> None:
    """Only now: a child that merely had no processor for so long must not be lost."""
    engine._silence = Silence(0.2)
    engine._look()


@pytest.mark.parametrize("model", ["counts", "sticks"])
async def test_a_child_that_is_there_and_says_nothing_more_is_lost_and_its_calls_go_on_or_fail(model: str) -> None:
    engine = child(model)
    await engine.start()
    fleet = Fleet()

    async def restart() -> Engine:
        another = child()
        await another.start()
        return another

    member = fleet.add(engine, CharTokenizer(), restart=restart)
    async with Manager(fleet) as manager, asyncio.timeout(120):
        session = manager.open_session()
        sampling, prompt = Sampling(max_tokens=3), TextPrompt((Constant("how many?"),))
        call = Call(id=CallId("c"), prompt=prompt, output=VariableName("y"), sampling=sampling)
        assert engine.pid is not None
        if model == "counts":  # it has not begun: nobody notices
            os.kill(engine.pid, signal.SIGSTOP)
            become_impatient(engine)
            task = await session.submit(call)
            assert (await task.finished()).text == "0 1 2 " and task.attempts == 2
        else:
            task = await session.submit(call)
            assert (await anext(task.chunks())).text == "0 "
            os.kill(engine.pid, signal.SIGSTOP)
            become_impatient(engine)
            assert task.work is not None
            work = asyncio.wait((task.work,))
            with pytest.raises(EngineLost, match="said nothing more"):
                await task.finished()
            await work
        assert member.rows == 0
        manager.check()
    await engine.close()
    assert not is_there(engine)


async def test_an_engine_that_has_done_all_it_was_told_is_asked_for_nothing() -> None:
    engine = await real_engine()
    assert isinstance(engine, ProcessEngine)
    async with asyncio.timeout(120):
        leaving = engine.generate(count(1, 2000))  # more than come while this process has no processor
        await anext(leaving)
        assert engine._is_asked
        engine.hurry(ContextId(1), 0.0)
        await leaving.aclose()  # type: ignore[attr-defined]
        await collect(engine.generate(count(2, 3)))
        await engine.free(ContextId(2))
        assert not engine._is_asked
        engine.hurry(ContextId(2), 0.0)
        while engine._is_asked:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.001)
    await engine.close()


async def test_a_child_that_everybody_has_given_up_is_lost_too() -> None:
    engine = child("deaf", silence_s=0.2)
    await engine.start()
    work = asyncio.create_task(collect(engine.generate(count(1, 3))))
    await asyncio.sleep(0)
    work.cancel()
    async with asyncio.timeout(60):
        assert "said nothing more" in str(await engine.lost())
    await engine.close()


@pytest.mark.parametrize("command", [CHILD, PAGED], ids=["idle child", "engine in a step"])
def test_a_child_ends_when_its_parent_is_killed(command: tuple[str, ...]) -> None:
    program = f"""
        import asyncio, os, signal, sys
        from parrot_compat.core.call import ResolvedSampling
        from parrot_compat.core.engine import Generate
        from parrot_compat.core.engines.process import ProcessEngine
        from parrot_compat.core.prompt import Tokens

        async def main():
            engine = ProcessEngine({command!r}, {{"name": "child", "model": sys.argv[1]}})
            await engine.start()
            generate = Generate(context=1, content=Tokens((5, 6)), sampling=ResolvedSampling(max_tokens=9))
            work = asyncio.create_task(anext(engine.generate(generate)))
            await asyncio.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())
    """
    model = "counts" if command is CHILD else "slow"
    # The child holds the pipe of its parent's stderr: this returns when the last of the two has ended, and not before.
    arguments = [sys.executable, "-c", textwrap.dedent(program), model]
    parent = subprocess.run(arguments, capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert parent.returncode == -signal.SIGKILL, parent.stderr
