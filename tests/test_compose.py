"""Everything wired together: the real application over our own engine in its own process."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import openai
import pytest

from parrot_compat.compose import Served, running
from parrot_compat.core.engines.process import ProcessEngine
from parrot_compat.core.errors import EngineError, ModelRefused
from parrot_compat.core.events import EngineJoined, Event, FirstToken
from parrot_compat.settings import Settings

from .server.live import connect, until
from .server.real import client_of, listening

pytest.importorskip("torch")

SMALL = Settings(device="cpu", max_model_len=512, kv_tokens=4096, threads=1)
PROMPT = "Once upon a time there was a server."


def free_tokens(served: Served) -> list[int | None]:
    return [member.engine.load().free_tokens for member in served.manager.fleet]


async def ask(client: openai.AsyncOpenAI) -> str:
    answer = await client.completions.create(model="builtin:tiny", prompt=PROMPT, max_tokens=8, temperature=0)
    return answer.choices[0].text


async def test_a_client_that_leaves_gives_its_pages_back_and_a_killed_engine_comes_back() -> None:
    events: list[Event] = []
    async with listening(SMALL) as (url, served), client_of(url) as client:
        served.manager.events.subscribe(events.append)
        said = await ask(client)
        await until(lambda: free_tokens(served) == [4096])

        endless = {"prompt": PROMPT, "n": 4, "max_tokens": 400, "ignore_eos": True, "stream": True}
        _, writer = await connect(url, "POST", "/v1/completions", json.dumps(endless).encode())
        async with asyncio.timeout(60):
            await until(lambda: sum(isinstance(event, FirstToken) for event in events) >= 5)
            assert free_tokens(served) != [4096]
            writer.close()
            await until(lambda: not served.manager.open_calls and free_tokens(served) == [4096])
        served.manager.check()

        (member,) = served.manager.fleet
        assert isinstance(member.engine, ProcessEngine) and member.engine.pid is not None
        os.kill(member.engine.pid, signal.SIGKILL)
        assert await ask(client) == said
        assert any(isinstance(event, EngineJoined) for event in events)


async def test_several_engines_serve_one_model_under_the_name_asked_for() -> None:
    settings = Settings(device="cpu", max_model_len=256, kv_tokens=1024, engines=2, served_model_name=("little",))
    async with running(settings) as served:
        (card,) = served.manager.models()
    assert (card.name, card.engines, card.context_tokens) == ("little", ("engine-0", "engine-1"), 256)


@pytest.mark.parametrize(
    ("settings", "named"),
    [(Settings(model="builtin:huge"), "huge"), (Settings(dtype="int3"), "int3"), (Settings(device="abacus"), "abacus")],
)
async def test_what_cannot_be_served_is_refused_by_name_and_leaves_nothing_behind(
    settings: Settings, named: str
) -> None:
    before = asyncio.all_tasks()  # of other tests on this loop too
    with pytest.raises((ModelRefused, EngineError), match=named):
        async with running(settings):
            raise AssertionError("it runs")
    assert asyncio.all_tasks() <= before
