"""POST /v1/parrot/graphs and its close: an app's calls, submitted before the app makes them.

The answer comes at once; with `stream` it stays open and pushes each call as it settles. It knows nothing of how a
plan is kept or claimed: a claim is a plain request (`openai.chat`).

The invariant: leaving a stream changes nothing for the plan; it ends when it is closed, or by time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from parrot_compat.core.errors import CallerError
from parrot_compat.core.plan import Plan
from parrot_compat.server.bodies import parse, read_body, read_raw
from parrot_compat.server.errors import within
from parrot_compat.server.hints import Hints
from parrot_compat.server.repeats import REPEATED, digest, key_of
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sessions.asking import session_label
from parrot_compat.server.sessions.directory import Known
from parrot_compat.server.sse import SseResponse

from .arrivals import earlier_ones
from .deferred import Deferred, OnEnd, Scope
from .events import Numbered
from .graphs_schema import CloseRequest, GraphRequest
from .planning import planned_calls, push

__all__ = ["router"]


@dataclass(frozen=True, slots=True)
class _Accepted:
    plan: Plan
    session: str

    def head(self) -> dict[str, Any]:
        calls = [{"id": call, "variable": task.call.output} for call, task in self.plan.tasks.items()]
        return {"session": self.session, "session_id": self.plan.session.id, "calls": calls}


def router(serving: Serving) -> APIRouter:
    routes = APIRouter()
    deferred: Deferred[_Accepted] = Deferred()

    @routes.post("/v1/parrot/graphs", summary="Submit calls ahead of the app that makes them", tags=["parrot"])
    async def create_graph(request: Request) -> Response:
        key = key_of(request)
        raw = await read_raw(request, serving.limits)
        body = parse(raw, GraphRequest)
        body.check(serving.limits)
        tenant, label = tenant_of(request), body.session or session_label(request.headers, Hints())

        async def accept() -> tuple[_Accepted, OnEnd]:
            is_apart = label is not None and not await serving.directory.has_room(tenant, label)
            known, plan = await _submitted(serving, tenant, None if is_apart else label, body, is_apart)
            return _Accepted(plan, known.name), lambda forget: plan.when_over(lambda _: forget())

        scope = _scope(tenant, label, body.nonce, key)
        if scope is None:
            (accepted, _), is_repeated = await accept(), False
        else:
            accepted, is_repeated = await deferred.once(scope, [call.id for call in body.calls], digest(raw), accept)
        headers = REPEATED if is_repeated else {}
        if not body.stream:
            return send_json({"object": "parrot.graph", "id": accepted.plan.id, **accepted.head()}, headers)
        owner = AsyncExitStack()
        for life in (accepted.plan.life, accepted.plan.session.life):
            owner.enter_context(life.held())
        for task in accepted.plan.tasks.values():  # a push may come after the close
            owner.enter_context(task.followed())
        return SseResponse(_pushes(serving, accepted), owner=owner, keep_alive_s=serving.keep_alive_s, headers=headers)

    @routes.post("/v1/parrot/graphs/{graph}/close", summary="The app's run is over", tags=["parrot"])
    async def close_graph(request: Request, graph: str) -> Response:
        body = await read_body(request, CloseRequest, serving.limits)
        await earlier_ones()
        receipt = serving.manager.close_plan(tenant_of(request), graph, body.taken)
        return send_json(
            {
                "object": "parrot.graph.closed",
                "id": graph,
                "taken": receipt.taken,
                "claimed": receipt.claimed,
                "cancelled": receipt.cancelled,
                "wasted_tokens": receipt.wasted_tokens,
            }
        )

    return routes


def _scope(tenant: str, session: str | None, nonce: str | None, key: str | None) -> Scope | None:
    """Where the call ids of a graph are unique; `None` where the client says nothing that a second try would repeat."""
    for kind, name in (("session", session), ("nonce", nonce), ("key", key)):
        if name:
            return tenant, kind, name
    return None


async def _submitted(
    serving: Serving, tenant: str, label: str | None, body: GraphRequest, is_apart: bool
) -> tuple[Known, Plan]:
    """Errors, and then nothing is left of it: those of `planned_calls` and of `Manager.plan`."""
    directory = serving.directory
    known = await (directory.open(tenant, ttl_s=body.ttl_s) if label is None else directory.join(tenant, label))
    session = known.session
    with ExitStack() as life:
        life.enter_context(session.life.held())
        try:
            planned = await planned_calls(serving, known, body, is_apart)
            calls = [item.call for item in planned]
            plan = await serving.manager.plan(
                session, calls, awaited=body.await_, ttl_s=body.ttl_s, width=body.max_concurrency
            )
        except BaseException as error:
            life.close()
            if label is None:
                await session.close()
            if isinstance(error, CallerError) and error.param is None:
                raise within(error, "calls") from None
            raise
    for item in planned:
        known.note(item.call.call.id, **item.notes)
    return known, plan


async def _pushes(serving: Serving, accepted: _Accepted) -> AsyncGenerator[bytes, None]:
    say, plan = Numbered(), accepted.plan
    yield say("parrot:accepted", graph=plan.id, **accepted.head())
    if not serving.manager.policy.pushes:
        return
    lost_tokens = 0
    async for settled in plan.events():
        if settled.task.result is None:
            lost_tokens += settled.task.drawn_tokens
        yield say(**push(serving, settled))
    # an answer that was just pushed may still be taken: until the close, only what has no answer is wasted
    wasted = lost_tokens if plan.receipt is None else plan.receipt.wasted_tokens
    yield say("parrot:done", graph=plan.id, wasted_tokens=wasted)
