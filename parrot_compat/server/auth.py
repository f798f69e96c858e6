"""Who asks: an API key is a tenant.

It knows nothing of what a tenant may do. Without keys the server is for this machine alone: it binds
loopback only, and refuses requests that a browser was tricked into sending (Host and Origin are checked) and those
that a proxy says come from elsewhere.

The invariant: no request reaches an endpoint of `/v1` without a tenant.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .anthropic.problems import body_of
from .errors import ApiError, Problem
from .origins import Origins, host_of, is_loopback

__all__ = ["Auth", "Keys"]

# Probes come without a key; the documentation holds no secret.
_OPEN_PATHS = frozenset({"/health", "/version", "/docs", "/openapi.json"})


class Keys:
    """The keys that open this server. Only their digests are kept, and they are never printed."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        if any(not key.strip() for key in keys):
            raise ValueError("an API key is empty")
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __repr__(self) -> str:
        return f"Keys({len(self._digests)} of them)"

    @property
    def are_several(self) -> bool:
        """There is more than one tenant, and each may need what another has taken."""
        return len(set(self._digests)) > 1

    def tenant(self, key: str) -> str | None:
        """The tenant of a key. Takes as long for a wrong key as for any right one."""
        asked = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        matches = [digest for digest in self._digests if hmac.compare_digest(digest, asked)]
        return f"key-{matches[0].hex()[:16]}" if matches else None


class Auth:
    """ASGI middleware: sets `scope["state"]["tenant"]`, or answers 401 or 403 by itself."""

    def __init__(self, app: ASGIApp, keys: Keys, origins: Origins) -> None:
        self._app = app
        self._keys = keys
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            scope.setdefault("state", {})["tenant"] = self._tenant(scope)
        except ApiError as error:
            return await _answer(error.problem, scope["path"], send)
        await self._app(scope, receive, send)

    def _tenant(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        if not self._keys:
            _must_be_local(headers, self._origins)
            return ""
        if scope["path"] in _OPEN_PATHS:
            return ""
        key = _key(headers)
        if not key:
            raise _unauthorized("no API key was sent; send 'Authorization: Bearer KEY' or 'x-api-key: KEY'")
        tenant = self._keys.tenant(key.strip())
        if tenant is None:
            raise _unauthorized("the API key is not one of this server's")
        return tenant


def _key(headers: Headers) -> str:
    """As OpenAI's clients send it, or as Anthropic's do."""
    kind, _, key = headers.get("authorization", "").partition(" ")
    return key if kind.lower() == "bearer" else headers.get("x-api-key", "")


def _must_be_local(headers: Headers, origins: Origins) -> None:
    """A page of another site may point a browser here (DNS rebinding, a form post): the names give it away. A proxy may
    bring anybody's request under our own name; many say whose it is."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if not is_loopback(host_of("//" + host)):
        raise _forbidden(f"host {host[:100]!r} is not this machine")
    if origin is not None and origin not in origins:
        raise _forbidden(f"origin {origin[:100]!r} is not this machine")
    for client in _forwarded_for(headers):
        # nginx calls whoever came by a Unix socket "unix:"; "unknown", "_hidden" and "" may be anybody
        if client != "unix:" and not is_loopback(client) and not is_loopback(host_of("//" + client)):
            raise _forbidden(f"a proxy asks for {client[:100]!r}, which is not this machine")


def _forwarded_for(headers: Headers) -> Iterator[str]:
    """Every client that proxies on the way have named, with or without its port."""
    for name in ("x-forwarded-for", "x-real-ip"):
        for line in headers.getlist(name):
            yield from filter(None, map(str.strip, line.split(",")))
    for line in headers.getlist("forwarded"):
        for proxy in filter(str.strip, line.split(",")):
            said = (pair.partition("=") for pair in proxy.split(";"))
            clients = [client.strip().strip('"') for name, _, client in said if name.strip().lower() == "for"]
            yield from clients or ("",)  # a proxy that does not say for whom it asks


def _unauthorized(message: str) -> ApiError:
    return ApiError(message, status=401, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def _forbidden(message: str) -> ApiError:
    return ApiError(
        f"{message}; a server without --api-key answers local requests only",
        status=403,
        type="permission_error",
        code="not_local",
    )


async def _answer(problem: Problem, path: str, send: Send) -> None:
    headers = {"content-type": "application/json", **problem.headers}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body_of(problem, path)})
