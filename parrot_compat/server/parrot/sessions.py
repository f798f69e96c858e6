"""/v1/parrot/sessions: open a session, look into it, end it.

It knows nothing of calls beyond what a session says of them. The invariants: a session is seen by its tenant alone; of
all descriptions that are asked for at a time one stretch is written in a turn of the event loop, and no whole is kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from parrot_compat.core.description import Description
from parrot_compat.server.bodies import Raw, Schema, read_raw
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sessions.directory import Known
from parrot_compat.server.sessions.object_schema import Name

from .arrivals import earlier_ones

__all__ = ["SessionRequest", "router"]

_AT_ONCE = 2**16
"""Characters of a description, some hundred calls of it, that are written before others have their turn: 2 ms."""


class SessionRequest(Schema):
    name: Name | None = None
    """For people; the id is drawn."""
    ttl_s: Annotated[float, Field(gt=0, le=7 * 86_400)] | None = None
    """How long it lives after its last use."""


def router(serving: Serving) -> APIRouter:
    routes = APIRouter(prefix="/v1/parrot/sessions", tags=["parrot"])
    turn = asyncio.Lock()

    @routes.post("", summary="Open a session")
    async def open_session(request: Request) -> Response:
        raw = Raw(await read_raw(request, serving.limits))

        async def opened() -> Response:
            body = raw.parse(SessionRequest)
            known = await serving.directory.open(tenant_of(request), title=body.name, ttl_s=body.ttl_s)
            return send_json({"object": "parrot.session", "id": known.name, "name": known.session.name})

        return await serving.repeats.once(request, tenant_of(request), raw, opened)

    @routes.get("/{session}", summary="The graph of a session, its states, times and tokens")
    async def describe_session(request: Request, session: str) -> Response:
        known = serving.directory.get(tenant_of(request), session)
        told = _in_turns(_told(known, known.session.description()), turn)
        return StreamingResponse(told, media_type="application/json")

    @routes.delete("/{session}", summary="End a session and everything under it")
    async def close_session(request: Request, session: str) -> Response:
        await earlier_ones()
        known = serving.directory.get(tenant_of(request), session)
        await known.session.close()
        return send_json({"object": "parrot.session.deleted", "id": known.name, "deleted": True})

    return routes


def _told(known: Known, description: Description) -> Iterator[str]:
    """As JSON: what core says of the session, and beside each call what its app said of it."""
    yield _json({"object": "parrot.session", "id": known.name, "name": description.name}).removesuffix("}")
    calls = (call | known.notes.get(call["id"], {}) for call in description.calls())
    for name, members in (("calls", calls), ("variables", description.variables())):
        yield f',"{name}":['
        for number, member in enumerate(members):
            yield f"{',' if number else ''}{_json(member)}"
        yield "]"
    yield "}"


async def _in_turns(pieces: Iterator[str], turn: asyncio.Lock) -> AsyncGenerator[bytes, None]:
    while True:
        async with turn:
            stretch = "".join(_some(pieces))
            await asyncio.sleep(0)
        if not stretch:
            return
        yield stretch.encode()


def _some(pieces: Iterator[str]) -> Iterator[str]:
    size = 0
    for piece in pieces:
        yield piece
        size += len(piece)
        if size >= _AT_ONCE:
            return


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"))
