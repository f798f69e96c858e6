"""More calls than a server behind us is given at a time: they wait here, in the turns of their tenants."""

from __future__ import annotations

import asyncio

import openai
import pytest

from parrot_compat.core.call import Call, CallId, VariableName
from parrot_compat.core.engines import openai_server
from parrot_compat.core.engines.openai_server import OpenAIServerEngine
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.core.prompt import ChatPrompt, Message
from tests.core.engines.test_upstream_gone import until
from tests.core.scripted_server import ScriptedServer, serving


def call(name: str) -> Call:
    prompt = ChatPrompt((Message.of("user", name),))
    return Call(id=CallId(name), prompt=prompt, output=VariableName(f"out-{name}"))


async def test_what_a_server_is_not_given_yet_waits_in_the_order_of_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_server, "_MOST_CALLS", 4)
    async with asyncio.timeout(120), serving(ScriptedServer(lambda prompt: "yes")) as server:
        fleet = Fleet()
        fleet.add(await OpenAIServerEngine.connect(server.base_url))
        async with Manager(fleet) as manager:
            server.speaks.clear()
            many, one = manager.open_session("many"), manager.open_session("one")
            tasks = [*await many.submit_all([call(f"m{number}") for number in range(7)])]
            await until(lambda: len(server.asked) == 4)
            tasks.append(await one.submit(call("o")))
            assert manager.queued_calls == 4 and [task.started_s is None for task in tasks].count(True) == 4
            server.speaks.set()
            assert {(await task.finished()).text for task in tasks} == {"yes"}
            manager.check()
    said = [body["messages"][0]["content"] for body in server.asked]
    assert len(said) == 8 and said[4] == "o"


async def test_a_server_is_given_fewer_calls_than_there_are_connections_to_it() -> None:
    async with serving(ScriptedServer(lambda prompt: "yes")) as server:
        engine = await OpenAIServerEngine.connect(server.base_url)
        connections = openai.DEFAULT_CONNECTION_LIMITS.max_connections
        assert engine.info.max_rows is not None and connections is not None
        assert 800 < engine.info.max_rows < connections - 50
        await engine.close()
