"""A server behind us that is gone while nobody asks it anything: that is seen, and so is its return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from parrot_compat.core.call import Call, CallId, VariableName
from parrot_compat.core.engine import Engine
from parrot_compat.core.engines.openai_server import OpenAIServerEngine, Upstream
from parrot_compat.core.errors import EngineLost
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.core.prompt import ChatPrompt, Message
from tests.core.engines.test_openai_server import generate
from tests.core.scripted_server import ScriptedServer, serving

LOOK_S = 0.02


class Listing(ScriptedServer):
    """It counts who asks for its models, and can be slow to tell them, or refuse."""

    def __init__(self) -> None:
        super().__init__(lambda prompt: "yes, and more than that")
        self.looks = 0
        self.lists = "at once"

    async def models(self, request: Request) -> Response:
        self.looks += 1
        if self.lists == "slowly":
            await asyncio.sleep(20 * LOOK_S)
        return await super().models(request) if self.lists == "at once" else JSONResponse({}, 500)

    def looked_at(self, more: int) -> Callable[[], bool]:
        before = self.looks
        return lambda: self.looks >= before + more


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # no event tells
        await asyncio.sleep(0.002)


async def connect(server: ScriptedServer) -> OpenAIServerEngine:
    return await OpenAIServerEngine.connect(Upstream(base_url=server.base_url, look_s=LOOK_S), name="engine-0")


async def test_a_server_that_is_gone_leaves_the_fleet_unasked_and_joins_it_again() -> None:
    server = Listing()

    async def start() -> Engine:
        return await connect(server)

    async with asyncio.timeout(120), AsyncExitStack() as stack:
        async with serving(server):
            fleet = Fleet()
            fleet.add(await start(), restart=start)
            manager = await stack.enter_async_context(Manager(fleet))
            await until(server.looked_at(3))
            assert [card.engines for card in manager.models()] == [("engine-0",)]
        await until(lambda: manager.models()[0].engines == ())
        prompt = ChatPrompt((Message.of("user", "?"),))
        task = await manager.open_session().submit(Call(id=CallId("c"), prompt=prompt, output=VariableName("answer")))
        port = int(server.base_url.removesuffix("/v1").rpartition(":")[2])
        await stack.enter_async_context(serving(server, port))
        assert (await task.finished()).text == "yes, and more than that"
        assert [card.engines for card in manager.models()] == [("engine-0",)]
        manager.check()


@pytest.mark.parametrize("lists", ["slowly", "with an error"])
async def test_a_server_that_is_slow_or_tells_no_models_is_there(lists: str) -> None:
    async with asyncio.timeout(120), serving(Listing()) as server:
        assert isinstance(server, Listing)
        engine = await connect(server)
        gone = asyncio.create_task(engine.lost())
        server.lists = lists
        await until(server.looked_at(5))
        assert not gone.done()
        await engine.close()
        loss = await gone
        assert isinstance(loss, EngineLost) and "was closed" in loss.message


async def test_a_server_that_answers_is_not_asked_for_more() -> None:
    async with asyncio.timeout(120), serving(Listing()) as server:
        assert isinstance(server, Listing)
        engine = await connect(server)
        gone = asyncio.create_task(engine.lost())
        server.pauses_at = 8
        chunks = engine.generate(generate())
        await anext(chunks)
        await asyncio.sleep(5 * LOOK_S)  # one look may have been on its way
        before = server.looks
        await asyncio.sleep(5 * LOOK_S)
        assert server.looks == before
        await chunks.aclose()
        await until(server.looked_at(2))
        await engine.close()
        await gone
