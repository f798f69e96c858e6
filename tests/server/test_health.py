"""Whether this server can answer now, as probes and metrics tell it."""

from __future__ import annotations

import asyncio

import jsonschema

from parrot_compat.core.engines.scripted import ScriptedEngine

from .live import Live, live, send, until
from .test_metrics import MODEL, scraped


async def never() -> ScriptedEngine:
    raise OSError("no such device")


async def lose(server: Live) -> None:
    """The engine is lost, and does not start again."""
    server.manager.fleet.member("scripted-0").restart = never
    server.engine.die("the power went")
    async with asyncio.timeout(30):
        await until(lambda: not server.manager.fleet.serving("org/scripted"))


async def test_a_server_whose_engines_are_all_being_started_again_is_not_well() -> None:
    async with live() as server:
        document = (await send(server, "GET", "/openapi.json")).json()
        assert (await scraped(server))["parrot_engines", MODEL] == 1
        await lose(server)
        reply = await send(server, "GET", "/health")
        assert reply.status == 503 and reply.json() == {"status": "no engine", "models": []}
        described = document["paths"]["/health"]["get"]["responses"]["503"]["content"]["application/json"]["schema"]
        jsonschema.validate(reply.json(), described | {"components": document["components"]})
        assert (await send(server, "HEAD", "/health")).status == 503
        assert (await scraped(server))["parrot_engines", MODEL] == 0
        (listed,) = (await send(server, "GET", "/v1/models")).json()["data"]
        assert listed["id"] == "org/scripted"  # it will be back


async def test_a_server_that_has_an_engine_for_another_model_is_well_and_says_for_which() -> None:
    async with live(more_models=["org/other"]) as server:
        await lose(server)
        reply = await send(server, "GET", "/health")
        assert reply.status == 200 and reply.json() == {"status": "ok", "models": ["org/other"]}
        values = await scraped(server)
        assert values["parrot_engines", MODEL] == 0 and values["parrot_engines", (("model", "org/other"),)] == 1
