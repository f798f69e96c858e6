"""Checks of output formats: others do not wait for them, and what was found good is good at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from parrot_compat.core.call import Call, CallId, Sampling, VariableName
from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import BadSchema
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.core.output_format import OutputFormat, Regex
from parrot_compat.core.prompt import Constant, TextPrompt

GOOD, BAD, HARD = Regex("a+"), Regex("("), Regex("hard to read")


class Checking(CharTokenizer):
    """It reads one form at a time, and a hard one for as long as it is let."""

    def __init__(self) -> None:
        self.checked: list[OutputFormat] = []
        self.may = threading.Event()
        self._one = threading.Lock()

    def check_format(self, format: OutputFormat) -> None:
        with self._one:
            self.checked.append(format)
            if format == HARD:
                assert self.may.wait(120)
            if format == BAD:
                raise BadSchema("it has no end")


@pytest.fixture
async def tokenizer() -> AsyncIterator[Checking]:
    tokenizer = Checking()
    yield tokenizer
    tokenizer.may.set()


@pytest.fixture
async def manager(tokenizer: Checking) -> AsyncIterator[Manager]:
    info = EngineInfo(name="a", model="m", context_tokens=65_536, obeys_formats=True)
    fleet = Fleet()
    fleet.add(ScriptedEngine(lambda prompt: "aaa", info), tokenizer)
    async with Manager(fleet) as manager:
        yield manager
        tokenizer.may.set()


def call(text: str = "say it", format: OutputFormat | None = None) -> Call:
    prompt = TextPrompt((Constant(text),))
    return Call(id=CallId("c"), prompt=prompt, output=VariableName("y"), sampling=Sampling(format=format))


async def answered(manager: Manager, tenant: str, asked: Call) -> str:
    task = await manager.open_session(tenant).submit(asked)
    return (await task.finished()).text


async def test_forms_that_take_their_time_hold_up_no_prompt_and_no_form_that_is_known(
    manager: Manager, tokenizer: Checking
) -> None:
    assert await answered(manager, "others", call(format=GOOD)) == "aaa"
    many = [asyncio.create_task(answered(manager, "many", call(format=HARD))) for _ in range(50)]
    async with asyncio.timeout(120):
        assert await answered(manager, "others", call("x" * 10_000)) == "aaa"  # such a prompt is made in a thread
        assert await answered(manager, "others", call(format=GOOD)) == "aaa"
        assert not tokenizer.may.is_set() and not any(one.done() for one in many)
        tokenizer.may.set()
        assert {await one for one in many} == {"aaa"}
    assert tokenizer.checked.count(GOOD) == 1


async def test_who_leaves_while_its_form_waits_has_it_read_by_nobody(manager: Manager, tokenizer: Checking) -> None:
    async with asyncio.timeout(120):
        first = asyncio.create_task(answered(manager, "many", call(format=HARD)))
        while not tokenizer.checked:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.001)
        leaving = asyncio.create_task(answered(manager, "many", call(format=GOOD)))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait((leaving,))
        tokenizer.may.set()
        assert await first == "aaa"
        assert await answered(manager, "many", call(format=HARD)) == "aaa"
    assert GOOD not in tokenizer.checked


async def test_a_form_that_is_refused_is_refused_again(manager: Manager) -> None:
    for _ in range(2):
        with pytest.raises(BadSchema, match="no end"):
            await answered(manager, "others", call(format=BAD))
