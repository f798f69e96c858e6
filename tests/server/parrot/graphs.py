"""Graphs for tests, and the events of their pushes as they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.server.live import Live, Reply, connect, send

CHAT, GRAPHS, SESSIONS = "/v1/chat/completions", "/v1/parrot/graphs", "/v1/parrot/sessions"


def user(text: str, *parts: dict[str, Any]) -> list[dict[str, Any]]:
    """One message of a user; with `parts` (references) its content is a list."""
    return [{"role": "user", "content": [{"type": "text", "text": text}, *parts] if parts else text}]


def ref(call: str, **more: Any) -> dict[str, Any]:
    return {"type": "parrot:ref", "call": call, **more}


def planned(id: str, text: str, *parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": id, "request": {"messages": user(text, *parts), **fields}}


def chain(**more: Any) -> dict[str, Any]:
    """Two calls: b reads what a says."""
    return {"calls": [planned("a", "count"), planned("b", "Sum up: ", ref("a"))], "await": ["b"], **more}


def echo(prompt: str) -> str:
    """A script that says what it was told: the last message, without the roles around it."""
    return "[" + prompt.removesuffix("assistant\n").rpartition("user\n")[2] + "]"


async def opened(server: Live, body: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
    reply = await send(server, "POST", GRAPHS, body, headers)
    assert reply.status == 200, reply.body
    graph: dict[str, Any] = reply.json()
    assert graph["object"] == "parrot.graph"
    return graph


async def close(server: Live, graph: str, taken: list[str] | None = None) -> Reply:
    return await send(server, "POST", f"{GRAPHS}/{graph}/close", {"taken": taken or []})


async def claim(server: Live, graph: str | None, call: str, text: str, nonce: str = "n", **fields: Any) -> Reply:
    said = {"v": 1, "claim": call, "nonce": nonce, **({} if graph is None else {"graph": graph})}
    return await send(server, "POST", CHAT, {"messages": user(text), "parrot": said, **fields})


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


class Pushes:
    """The answer of a streamed graph, open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def next(self) -> dict[str, Any] | None:
        """The next event; `None` at the end. Comments are left out."""
        async with asyncio.timeout(30):
            while line := await self._reader.readline():
                if line.startswith(b"data: "):
                    event: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                    return event
        return None

    async def until(self, type: str) -> dict[str, Any]:
        while (event := await self.next()) is not None:
            if event["type"] == type:
                return event
        raise AssertionError(f"the stream ended without {type}")

    async def rest(self) -> list[dict[str, Any]]:
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events

    def leave(self) -> None:
        self._writer.close()


@asynccontextmanager
async def pushed(server: Live, body: dict[str, Any], headers: dict[str, str] | None = None) -> AsyncIterator[Pushes]:
    raw = json.dumps({**body, "stream": True}).encode()
    reader, writer = await connect(server.url, "POST", GRAPHS, raw, dict(headers or {}))
    try:
        yield Pushes(reader, writer)
    finally:
        writer.close()
