"""The application: endpoints, and around them what every answer has.

It knows the manager's interface and no engine. `create_app` makes one from its arguments alone; two in one
process share nothing.

The invariant: every answer but those to preflights has an `x-request-id`, and every error has OpenAI's envelope, or
Anthropic's on its paths, also where the server ends in the midst of it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parrot_compat import __version__
from parrot_compat.core.errors import ParrotError
from parrot_compat.core.manager import Manager
from parrot_compat.core.output_format import ToolStyle

from .anthropic import messages
from .anthropic.problems import body_of, is_anthropics
from .auth import Auth, Keys
from .bodies import OpenBodies
from .describing import describe
from .documentation import page
from .encoder import Encoder
from .errors import SHUTTING_DOWN, Problem, problem_of
from .limits import RequestLimits
from .metrics import Metrics
from .metrics import router as metrics_router
from .openai import chat, completions, embeddings, models, tokenize
from .origins import Cors, Origins
from .parrot import calls, capabilities, graphs, sessions, variables
from .responses import responses
from .serving import Serving, send_json
from .sessions.directory import Directory

__all__ = ["Edge", "create_app"]

log = logging.getLogger(__name__)


def create_app(
    manager: Manager,
    *,
    keys: Keys | None = None,
    limits: RequestLimits | None = None,
    fingerprint: str = f"fp_parrot_{__version__}",
    keep_alive_s: float = 15.0,
    tool_style: ToolStyle | None = None,
    aliases: Mapping[str, str] | None = None,
    origins: Sequence[str] = (),
) -> FastAPI:
    """The HTTP face of a running `manager`. Without `keys` it answers local requests only; without `tool_style` calls
    of tools are read as each model's chat template shows them; `aliases` are other names of served models, `origins`
    of sites beside this machine's whose pages may ask."""
    app = FastAPI(
        title="parrot_compat",
        version=__version__,
        description="Serves LLM applications, not requests. Any OpenAI client works unchanged.",
        redirect_slashes=False,  # a redirect would lose the body of a POST
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere
        redoc_url=None,
    )
    limits, keys = limits or RequestLimits(), keys or Keys()
    serving = Serving(
        manager=manager,
        directory=Directory(manager, limits),
        limits=limits,
        fingerprint=fingerprint,
        keep_alive_s=keep_alive_s,
        tool_style=tool_style,
        aliases=dict(aliases or {}),
        encoder=Encoder(is_shared=keys.are_several),
    )
    _add_endpoints(app, serving)
    metrics = Metrics(manager)
    app.include_router(metrics_router(metrics))
    _add_probes(app, manager)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ParrotError, _on_error)
    allowed = Origins(origins)
    app.add_middleware(OpenBodies, limits=limits, is_shared=keys.are_several)
    app.add_middleware(Auth, keys=keys, origins=allowed)  # around that: bodies are tenants'
    app.add_middleware(
        Edge, metrics=metrics, allowance=manager.allowance
    )  # around that: refusals have a request id too
    app.add_middleware(Cors, origins=allowed)  # around all: a page may read any of this, and its preflight has no key
    has_keys = bool(keys)

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app, has_keys=has_keys)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
    return app


def _add_endpoints(app: FastAPI, serving: Serving) -> None:
    for endpoints in (chat, responses, messages, completions, embeddings, tokenize, sessions, calls, variables):
        app.include_router(endpoints.router(serving))
    app.include_router(models.router(serving, created=int(time.time())))
    policy = serving.manager.policy
    app.include_router(capabilities.router(policy))
    if policy.plans:
        app.include_router(graphs.router(serving))


def _add_probes(app: FastAPI, manager: Manager) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="Can this server answer?", tags=["probes"])
    async def health() -> Response:
        served = [card.name for card in manager.models() if card.engines]
        response = send_json({"status": "ok" if served else "no engine", "models": served})
        response.status_code = 200 if served else 503
        return response

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(page(app.openapi()), media_type="text/html")

    @app.get("/version", summary="Version of parrot_compat", tags=["probes"])
    async def version() -> Response:
        return send_json({"version": __version__})


# ---- errors ----------------------------------------------------------------------------------------


async def _on_error(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    if problem.status >= 500:
        request_id = getattr(request.state, "request_id", "none")
        kind = type(error).__name__
        # a server that is full is asked for much, and each line would make it slower: metrics count its refusals
        level = logging.DEBUG if problem.code == "queue_full" else logging.WARNING
        log.log(level, "%s %s (request %s): %s: %s", request.method, request.url.path, request_id, kind, error)
    return _response(problem, request.url.path)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, no such method on it."""
    assert isinstance(error, HTTPException)
    message, code = str(error.detail), None
    if error.status_code == 404:
        message, code = f"there is no {request.method} {request.url.path[:200]} here", "unknown_url"
    elif error.status_code == 405:
        message, code = f"{request.url.path[:200]} does not take {request.method}", "method_not_allowed"
    headers = dict(error.headers or {})
    if error.status_code == 405 and (allowed := _allowed(request)):
        headers = {"allow": allowed}
    problem = Problem(status=error.status_code, message=message, code=code, headers=headers)
    return _response(problem, request.url.path)


def _allowed(request: Request) -> str:
    """Methods that are described for this path; starlette itself names those of the first route that has it."""
    paths: dict[str, Any] = request.app.openapi()["paths"]
    here = [methods for path, methods in paths.items() if compile_path(path)[0].fullmatch(request.url.path)]
    return ", ".join(sorted({method.upper() for methods in here for method in methods}))


def _response(problem: Problem, path: str) -> Response:
    headers = dict(problem.headers)
    return Response(body_of(problem, path), status_code=problem.status, media_type="application/json", headers=headers)


# ---- what every answer has ---------------------------------------------------------------------------

_SANE_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,128}")


class Edge:
    """ASGI middleware: request id (`scope["state"]["request_id"]`, for logs), time taken, and the answer to errors that
    nobody else has answered."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics | None = None,
        allowance: Callable[[str], tuple[int, int]] | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._allowance = allowance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun = time.perf_counter()
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if _SANE_ID.fullmatch(asked) else f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        has_started = False

        async def send_marked(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if is_anthropics(scope["path"]):
                    headers["request-id"] = request_id
                headers["openai-processing-ms"] = str(round((time.perf_counter() - begun) * 1000))
                headers["openai-version"] = "2020-10-01"
                headers["x-parrot-version"] = __version__
                tenant = scope.get("state", {}).get("tenant")
                if self._allowance is not None and tenant is not None:
                    most, left = self._allowance(tenant)
                    headers["x-ratelimit-limit-requests"] = str(most)
                    headers["x-ratelimit-remaining-requests"] = str(left)
                    headers["x-ratelimit-reset-requests"] = "0s"  # a call that ends makes room at once
                if self._metrics is not None:
                    self._metrics.answered(getattr(scope.get("route"), "path", "none"), message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except asyncio.CancelledError:  # by a server that ends; where a client has left, nothing is cancelled from here
            if not has_started:
                await _response(SHUTTING_DOWN, scope["path"])(scope, receive, send_marked)
        except Exception as error:
            if has_started:
                raise  # uvicorn logs it and cuts the connection, which is all that can still be said
            log.exception("%s %s failed inside (request %s)", scope["method"], scope["path"], request_id)
            await _response(problem_of(error), scope["path"])(scope, receive, send_marked)
