"""Origins: the sites whose pages may ask, and read what is answered.

They know nothing of who asks. A page of this machine always may. Of others a browser says where they are from, and
lets them read an answer only if that names them (CORS); preflights ask first, and have no key.

The invariant: no answer names an origin that was not allowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Cors", "Origins", "host_of", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Is `host` (a name or an address, without port) this machine and nothing else?"""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # "[::1" and the like
        return ""


class Origins:
    def __init__(self, listed: Sequence[str] = ()) -> None:
        """`listed` as browsers write them (`https://app.example`), beside this machine's; `*` is all."""
        self._listed = frozenset(origin.lower().rstrip("/") for origin in listed)

    def __contains__(self, origin: str) -> bool:
        return "*" in self._listed or origin.lower() in self._listed or is_loopback(host_of(origin))


class Cors(CORSMiddleware):
    """ASGI middleware: answers preflights of allowed origins, and lets their pages read all other answers."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        # any header: OpenAI's client sends a dozen of its own
        super().__init__(app, allow_methods=("*",), allow_headers=("*",), expose_headers=("*",))
        self._origins = origins

    def is_allowed_origin(self, origin: str) -> bool:
        return origin in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = Headers(scope=scope).get("origin") if scope["type"] == "http" else None
        if origin is None or origin not in self._origins:
            return await self.app(scope, receive, send)
        await super().__call__(scope, receive, send)
