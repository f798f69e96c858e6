"""/v1/parrot/sessions/{session}/variables: make one, write it, wait for it, follow it.

Whoever waits is somebody the app serves: what the variable takes is made quick. It knows nothing of calls.

The invariant: a waiting client gets the text, or why it will never come, or the news that it is not there yet.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any, get_args

from fastapi import APIRouter, Request, Response

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.core.errors import ParrotError
from parrot_compat.core.session import Session
from parrot_compat.core.variable import Variable
from parrot_compat.server.bodies import Schema, read_body
from parrot_compat.server.errors import invalid, problem_of
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sessions.directory import Known
from parrot_compat.server.sessions.object_schema import PathName
from parrot_compat.server.sse import SseResponse, while_connected

from .events import Numbered
from .planning import drawn_variable

__all__ = ["TextRequest", "VariableRequest", "router"]

LONGEST_WAIT_S = 600.0


class VariableRequest(Schema):
    name: PathName | None = None
    """It becomes the id."""
    text: str | None = None


class TextRequest(Schema):
    text: str


def router(serving: Serving) -> APIRouter:
    routes = APIRouter(prefix="/v1/parrot/sessions/{session}/variables", tags=["parrot"])

    def known(request: Request, session: str) -> Known:
        return serving.directory.get(tenant_of(request), session)

    @routes.post("", summary="Make a variable, with its text or without")
    async def make_variable(request: Request, session: str) -> Response:
        within = known(request, session).session
        body = await read_body(request, VariableRequest, serving.limits)
        name = body.name or drawn_variable()
        variable = within.declare(name) if body.text is None else within.set(name, body.text)
        return send_json({"object": "parrot.variable", "id": variable.name})

    @routes.get("/{variable}", summary="A variable's text; wait for it up to `wait` seconds")
    async def get_variable(request: Request, session: str, variable: str) -> Response:
        within = known(request, session)
        wait_s, objective = _wait_s(request), _objective(request)
        value = within.variable(variable)
        if wait_s and not value.is_settled:
            await while_connected(request.receive, _settled(within.session, value, wait_s, objective))
        return send_json({"object": "parrot.variable", **_state(variable, value)})

    @routes.get("/{variable}/stream", summary="A variable's text as it is written")
    async def stream_variable(request: Request, session: str, variable: str) -> Response:
        within = known(request, session)
        objective = _objective(request)
        value = within.variable(variable)  # unknown: said before the first byte
        events = _stream(within.session, value.name, objective)
        return SseResponse(events, owner=AsyncExitStack(), keep_alive_s=serving.keep_alive_s)

    @routes.put("/{variable}", summary="Write a variable, once")
    async def set_variable(request: Request, session: str, variable: str) -> Response:
        within = known(request, session)
        body = await read_body(request, TextRequest, serving.limits)
        value = within.variable(variable)
        return send_json({"object": "parrot.variable", **_state(variable, within.session.set(value.name, body.text))})

    return routes


async def _settled(session: Session, variable: Variable, wait_s: float, objective: ObjectiveKind | None) -> None:
    """Returns when it is, or the time is over."""
    try:
        await session.read(variable.name, wait_s, objective)
    except ParrotError:
        if variable.failure is None:
            raise


def _state(name: str, variable: Variable) -> dict[str, Any]:
    """`name` is what the client calls it."""
    named = {"id": name, "name": name}
    if not variable.is_settled:
        return {**named, "state": "pending"}
    if variable.failure is not None:
        return {**named, "state": "failed", **problem_of(variable.failure).envelope()}
    return {**named, "state": "ready", "text": variable.text_so_far}


async def _stream(session: Session, variable: str, objective: ObjectiveKind | None) -> AsyncGenerator[bytes, None]:
    say = Numbered()
    try:
        with session.awaiting(variable, objective) as awaited:
            async for text in awaited.stream():
                yield say("parrot:chunk", text=text)
    except ParrotError as failure:
        yield say("parrot:failed", **problem_of(failure).envelope())
    else:
        yield say("parrot:done")


def _wait_s(request: Request) -> float:
    asked = request.query_params.get("wait", "0")
    try:
        seconds = float(asked)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_WAIT_S:
        raise invalid("wait", f"{asked[:40]!r}; seconds from 0 to {LONGEST_WAIT_S:g}")
    return seconds


def _objective(request: Request) -> ObjectiveKind | None:
    asked = request.query_params.get("objective")
    for kind in get_args(ObjectiveKind):
        if kind == asked:
            objective: ObjectiveKind = kind
            return objective
    if asked is None:
        return None
    raise invalid("objective", f"{asked[:40]!r} is none of {', '.join(get_args(ObjectiveKind))}")
