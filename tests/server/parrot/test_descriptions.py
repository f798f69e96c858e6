"""Sessions are looked into while others are served, however much is in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from parrot_compat.core.description import Description
from parrot_compat.core.session import Session
from tests.core.conftest import make_call
from tests.server.live import Live, connect, live, send

from .graphs import SESSIONS

MANY = 1500


async def large(server: Live) -> Session:
    """A session of many calls that wait for one variable."""
    session = server.manager.open_session(name="large")
    session.declare("page")
    await session.submit_all([make_call(f"c{number}", "☃", "page") for number in range(MANY)])
    return session


async def test_a_session_of_many_calls_is_described_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    in_turn, in_turns = 0, []

    def counted(self: Description) -> Iterator[dict[str, Any]]:
        nonlocal in_turn
        for call in before(self):
            in_turn += 1
            yield call

    async def watch() -> None:
        nonlocal in_turn
        while True:
            in_turns.append(in_turn)
            in_turn = 0
            await asyncio.sleep(0)

    before = Description.calls
    monkeypatch.setattr(Description, "calls", counted)
    async with live() as server, asyncio.timeout(120):
        session = await large(server)
        watching = asyncio.create_task(watch())
        asked = [send(server, "GET", f"{SESSIONS}/{session.id}") for _ in range(3)]
        replies = await asyncio.gather(*asked)
        watching.cancel()
        described = session.describe()
    assert sum(in_turns) == 3 * MANY and max(in_turns) < 200, "of all that ask, in one turn"
    for reply in replies:
        assert reply.json() == {"object": "parrot.session", **json.loads(json.dumps(described))}
        assert list(reply.json()) == ["object", "id", "name", "calls", "variables"]


async def test_what_ends_while_it_is_described_is_described_to_its_end() -> None:
    async with live() as server, asyncio.timeout(120):
        session = await large(server)
        reader, writer = await connect(server.url, "GET", f"{SESSIONS}/{session.id}")
        await reader.readuntil(b'"id":"c0"')
        await session.close()
        rest = await reader.read()
        writer.close()
        assert b'"state":"cancelled"' in rest and rest.endswith(b"}\r\n0\r\n\r\n")


async def test_a_session_without_calls_is_described_too() -> None:
    async with live() as server:
        session = server.manager.open_session()
        reply = await send(server, "GET", f"{SESSIONS}/{session.id}")
        assert reply.headers["content-type"] == "application/json"
        assert reply.json() == {
            "object": "parrot.session", "id": session.id, "name": None, "calls": [], "variables": [],
        }  # fmt: skip
