"""/v1/parrot/sessions: open a session, look into it, end it.

It knows nothing of calls beyond what a session says of them. The invariant: a session is seen by its tenant alone.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from parrot_compat.server.bodies import Schema, parse, read_raw
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sessions.directory import Known
from parrot_compat.server.sessions.object_schema import Name

from .arrivals import earlier_ones

__all__ = ["SessionRequest", "router"]


class SessionRequest(Schema):
    name: Name | None = None
    """For people; the id is drawn."""
    ttl_s: Annotated[float, Field(gt=0, le=7 * 86_400)] | None = None
    """How long it lives after its last use."""


def router(serving: Serving) -> APIRouter:
    routes = APIRouter(prefix="/v1/parrot/sessions", tags=["parrot"])

    @routes.post("", summary="Open a session")
    async def open_session(request: Request) -> Response:
        raw = await read_raw(request, serving.limits)

        async def opened() -> Response:
            body = parse(raw, SessionRequest)
            known = await serving.directory.open(tenant_of(request), title=body.name, ttl_s=body.ttl_s)
            return send_json({"object": "parrot.session", "id": known.name, "name": known.session.name})

        return await serving.repeats.once(request, tenant_of(request), raw, opened)

    @routes.get("/{session}", summary="The graph of a session, its states, times and tokens")
    async def describe_session(request: Request, session: str) -> Response:
        return send_json(_described(serving.directory.get(tenant_of(request), session)))

    @routes.delete("/{session}", summary="End a session and everything under it")
    async def close_session(request: Request, session: str) -> Response:
        await earlier_ones()
        known = serving.directory.get(tenant_of(request), session)
        await known.session.close()
        return send_json({"object": "parrot.session.deleted", "id": known.name, "deleted": True})

    return routes


def _described(known: Known) -> dict[str, Any]:
    """What core says of the session, and beside each call what its app said of it."""
    description = known.session.describe()
    calls = [call | known.notes.get(call["id"], {}) for call in description["calls"]]
    return {"object": "parrot.session", **description, "id": known.name, "calls": calls}
