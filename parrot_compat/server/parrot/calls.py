"""/v1/parrot/sessions/{session}/calls and /cancel: call a function, whose outputs are variables and come later; end it.

It knows nothing of how calls run. The invariant: all calls of a request are accepted, or none, and none once its client
has left.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from fastapi import APIRouter, Request, Response

from parrot_compat.core.errors import CallerError, Cancelled
from parrot_compat.core.kept import size_of_text
from parrot_compat.core.session import Session
from parrot_compat.core.task import Task
from parrot_compat.server.bodies import Items, Schema, parse, read_body, read_raw
from parrot_compat.server.errors import within
from parrot_compat.server.hints import Hints
from parrot_compat.server.repeats import REPEATED, digest, key_of
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sessions.asking import objective_of
from parrot_compat.server.sessions.directory import Known
from parrot_compat.server.sse import while_connected

from .calls_schema import CallsRequest
from .deferred import Deferred

__all__ = ["CancelRequest", "router"]

Called = list[dict[str, Task]]
"""For each binding the task of each output."""

_SCOPE = ("calls",)
_KEYED_BYTES = 1_200  # of a request that may come again, beside its key: measured
_BINDING_BYTES = 200


class CancelRequest(Schema):
    """Without either, every call that is not over is ended."""

    calls: Items[str] | None = None
    requests: Items[str] | None = None
    """The `id` of requests that called functions: whoever has not seen an answer knows no other name of their calls.
    One that never came is passed over."""


def router(serving: Serving) -> APIRouter:
    routes = APIRouter(prefix="/v1/parrot/sessions", tags=["parrot"])
    deferred: WeakKeyDictionary[Session, Deferred[Called]] = WeakKeyDictionary()

    @routes.post("/{session}/calls", summary="Call a function; its outputs come later")
    async def create_calls(request: Request, session: str) -> Response:
        known = serving.directory.get(tenant_of(request), session)
        key = key_of(request)
        raw = await read_raw(request, serving.limits)
        body = parse(raw, CallsRequest)
        body.check(serving.limits)
        hints = Hints()
        hints.ignored(*body.ignored())
        key = body.id or key

        async def accept() -> tuple[Called, None]:
            made = await _called(serving, known, body, hints)
            if key is not None:
                known.session.kept.add(_KEYED_BYTES + size_of_text(key) + _BINDING_BYTES * len(made))
            return made, None

        with known.session.life.held():
            if key is not None:
                of_session = deferred.setdefault(known.session, Deferred())
                making = of_session.once(_SCOPE, [key], digest(raw), accept)
                made, is_repeated = await while_connected(request.receive, making)
            else:
                (made, _), is_repeated = await while_connected(request.receive, accept()), False
        variables = [{output: task.output.name for output, task in tasks.items()} for tasks in made]
        return send_json(
            {
                "object": "parrot.call",
                "calls": [
                    {"id": task.call.id, "output": output, "variable": task.output.name}
                    for tasks in made
                    for output, task in tasks.items()
                ],
                "variables": variables if isinstance(body.bindings, list) else variables[0],
            },
            hints.headers() | (REPEATED if is_repeated else {}),
        )

    @routes.post("/{session}/cancel", summary="End the calls that are named, or every call that is not over")
    async def cancel_calls(request: Request, session: str) -> Response:
        known = serving.directory.get(tenant_of(request), session)
        body = await read_body(request, CancelRequest, serving.limits)
        if body.calls is None and body.requests is None:
            known.session.cancel(Cancelled(f"session {known.name!r} was cancelled"))
        tasks = [_task(known, call, f"calls[{index}]") for index, call in enumerate(body.calls or ())]
        of_session = deferred.get(known.session, Deferred())
        for key in body.requests or ():
            tasks += [task for each in await of_session.earlier(_SCOPE, key) or () for task in each.values()]
        for task in tasks:
            task.cancel()
        return send_json({"object": "parrot.session", "id": known.name, "name": known.session.name})

    return routes


def _task(known: Known, call: str, path: str) -> Task:
    try:
        return known.task(call)
    except CallerError as error:
        raise within(error, path) from None


async def _called(serving: Serving, known: Known, body: CallsRequest, hints: Hints) -> Called:
    return await known.session.call_each(
        body.parsed(),
        body.segments(known.variable),
        outputs=body.sampling_of(),
        sampling=body.sampling(),
        form=body.form,
        function=body.function,
        model=serving.card(body.model).name,
        objective=objective_of(body, body.objective, hints),
    )
