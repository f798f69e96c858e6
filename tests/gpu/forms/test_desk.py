"""Forms are compiled beside the steps: nobody stands still for them, and whoever waits for one is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Sequence

import pytest

from parrot_compat.core.call import Finish, ResolvedSampling
from parrot_compat.core.engine import ContextId, Fill, Generate
from parrot_compat.core.errors import BadPrompt, BadSchema, ContextLost, EngineLost
from parrot_compat.core.output_format import AnyJson, Regex
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.drawing.token_bits import TokenBits, all_but
from parrot_compat.gpu.engine import TorchEngine
from tests.core.engine_contract import settle
from tests.gpu.at_once import at_once
from tests.gpu.paged_runner import VOCABULARY, PagedRunner, answer, expected, paged_stepper, prompt, tokenizer

FORM = AnyJson()


class AnyText:
    is_complete = is_ended = False

    def allowed(self, may_end: bool, without: Sequence[int] = ()) -> TokenBits:
        return all_but((), VOCABULARY // 8)

    def take(self, token: int, left: int) -> int:
        return token


class Library:
    """Compiles when it is let."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.compiled = 0

    def __call__(self, sampling: ResolvedSampling) -> AnyText:
        self.begun.set()
        assert self.may_end.wait(30)
        self.compiled += 1
        if isinstance(sampling.format, Regex):
            raise BadSchema("no such regex")
        return AnyText()


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
async def engine(library: Library) -> AsyncIterator[TorchEngine]:
    engine = TorchEngine(EngineConfig(name="forms"), lambda _: paged_stepper(PagedRunner(), forms=library))
    await engine.start()
    yield engine
    library.may_end.set()
    await settle(engine)
    engine.check()
    await engine.close()


async def outcome(asked: Awaitable[object]) -> type[Exception] | None:
    """What it fails with."""
    try:
        await asked
    except Exception as error:
        return type(error)
    return None


async def test_an_answer_without_a_form_is_drawn_while_a_form_is_compiled(
    engine: TorchEngine, library: Library
) -> None:
    formed = asyncio.ensure_future(answer(engine, 1, prompt(9), 5, format=FORM))
    assert await asyncio.to_thread(library.begun.wait, 30)
    assert await answer(engine, 2, prompt(9, 1), 12) == expected(prompt(9, 1), 12)
    assert not formed.done()
    library.may_end.set()
    assert await formed == expected(prompt(9), 5)


class Short(AnyText):
    """Ends with its third token, which is an end to the form alone."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, token: int, left: int) -> int:
        self.taken += 1
        self.is_complete = self.is_ended = self.taken == 3
        return token


async def test_the_token_that_ends_a_form_is_no_text_of_it() -> None:
    """Not even where the checkpoint names no end, or the call ignores it."""
    engine = TorchEngine(EngineConfig(name="forms"), lambda _: paged_stepper(PagedRunner(), forms=lambda _: Short()))
    await engine.start()
    try:
        sampling = ResolvedSampling(max_tokens=9, format=FORM, ignore_eos=True)
        generate = Generate(context=ContextId(1), content=Tokens(prompt(9)), sampling=sampling)
        chunks = [chunk async for chunk in engine.generate(generate)]
    finally:
        await engine.close()
    tokens = [token for chunk in chunks for token in chunk.tokens]
    assert tuple(tokens) == expected(prompt(9), 3) and chunks[-1].finish is Finish.STOP
    assert "".join(chunk.text for chunk in chunks) == tokenizer().decode(tokens[:2])


async def test_an_engine_that_ends_leaves_forms_that_were_not_begun(library: Library) -> None:
    engine = TorchEngine(EngineConfig(name="forms"), lambda _: paged_stepper(PagedRunner(), forms=library))
    await engine.start()
    asked = [asyncio.ensure_future(answer(engine, context, prompt(9), 5, format=FORM)) for context in range(1, 5)]
    assert await asyncio.to_thread(library.begun.wait, 30)
    closing = asyncio.ensure_future(engine.close())
    assert [await outcome(one) for one in asked] == [EngineLost] * 4
    await closing
    library.may_end.set()
    for thread in threading.enumerate():
        if thread.name.startswith("forms"):
            await asyncio.to_thread(thread.join, 30)
    assert library.compiled == 1


async def test_verbs_in_another_line_go_on_one_after_the_other_while_a_form_is_compiled(
    engine: TorchEngine, library: Library
) -> None:
    formed = asyncio.ensure_future(answer(engine, 1, prompt(9), 5, format=FORM))
    assert await asyncio.to_thread(library.begun.wait, 30)
    fill = engine.fill(Fill(context=ContextId(2), content=Tokens(prompt(9, 1))))
    _, drawn = await at_once(engine, fill, answer(engine, 2, prompt(3, 2), 5))
    assert drawn == expected(prompt(9, 1) + prompt(3, 2), 5)
    assert not formed.done()
    library.may_end.set()
    assert await formed == expected(prompt(9), 5)


async def test_a_form_that_cannot_be_compiled_fails_its_command_and_those_behind_it(
    engine: TorchEngine, library: Library
) -> None:
    formed = asyncio.ensure_future(answer(engine, 1, prompt(9), 5, format=Regex("(")))
    assert await asyncio.to_thread(library.begun.wait, 30)
    behind = asyncio.ensure_future(engine.fill(Fill(context=ContextId(1), content=Tokens(prompt(3)))))
    await asyncio.sleep(0)
    library.may_end.set()
    with pytest.raises(BadSchema, match="no such regex"):
        await formed
    with pytest.raises(ContextLost):
        await behind
    assert await answer(engine, 1, prompt(9), 5) == expected(prompt(9), 5)


async def test_who_leaves_while_a_form_is_compiled_leaves_nothing_behind(engine: TorchEngine, library: Library) -> None:
    formed = [asyncio.ensure_future(answer(engine, context, prompt(9), 5, format=FORM)) for context in (1, 2, 3)]
    assert await asyncio.to_thread(library.begun.wait, 30)
    for one in formed:
        one.cancel()
    await asyncio.wait(formed)
    assert await answer(engine, 4, prompt(9), 5) == expected(prompt(9), 5)
    library.may_end.set()
    assert await answer(engine, 1, prompt(9), 5, format=FORM) == expected(prompt(9), 5)
    assert library.compiled == 2, "those that had not begun need not be compiled"


async def test_freeing_a_context_ends_all_that_stands_in_its_line_behind_a_fork_that_waits_for_its_form(
    engine: TorchEngine, library: Library
) -> None:
    one, ended = ContextId(1), asyncio.Event()

    async def fill(salt: int) -> None:
        await engine.fill(Fill(context=one, content=Tokens(prompt(9, salt))))

    async def second() -> None:
        await fill(1)
        ended.set()

    async def freed() -> None:
        await ended.wait()
        await asyncio.to_thread(library.begun.wait, 30)
        await engine.free(one)

    fork = answer(engine, 2, prompt(4, 5), 5, parent=one, format=FORM)
    told = await at_once(engine, *map(outcome, (fill(0), second(), fork, fill(2), freed())))
    assert told == [None, None, ContextLost, ContextLost, None]
    library.may_end.set()
    assert await answer(engine, 1, prompt(9), 5) == expected(prompt(9), 5), "it begins anew"


async def test_a_command_that_is_refused_for_another_reason_holds_nobody_up(
    engine: TorchEngine, library: Library
) -> None:
    library.may_end.set()
    with pytest.raises(BadPrompt):
        await answer(engine, 1, (VOCABULARY + 1,), 5, format=FORM)
    assert await answer(engine, 1, prompt(9), 5, format=FORM) == expected(prompt(9), 5)
