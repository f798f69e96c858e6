"""Repeats: a request sent again under its `Idempotency-Key` gets the answer that it got before.

It knows nothing of what is asked or answered, and keeps whole answers only: a stream once it has been sent to its end,
and then it comes at once. An error is not kept, nor a stream that a client has left: it may go better the next time.

The invariant: within a tenant and a path a key stands for one body; while its first request runs no second one does. No
more than `_KEPT_BYTES` are kept.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from .bodies import Raw
from .errors import ApiError
from .sse import SseResponse

__all__ = ["REPEATED", "Repeats", "digest", "key_of"]

REPEATED = {"x-parrot-repeated": "true"}
"""The header of an answer that was given before."""

_KEPT_S = 600.0  # a client that has given up by then asks anew
_KEPT_BYTES = 64 * 2**20
_ENTRY_BYTES = 2_000  # of a response with its headers, beside its body
_LONGEST = 8 * 2**20
"""Bytes of an answer: a few large ones are not to take the place of all others."""
_LONGEST_KEY = 256
_Key = tuple[str, str, str]


def key_of(request: Request) -> str | None:
    """What its client knows the request by when it sends it again. Errors: `ApiError` 400."""
    key = request.headers.get("idempotency-key")
    if key is not None and len(key) > _LONGEST_KEY:
        raise ApiError(f"Idempotency-Key: {len(key)} characters; at most {_LONGEST_KEY}", code="invalid_value")
    return key or None


def digest(body: bytes) -> bytes:
    """Stands for a body that is only compared."""
    return hashlib.sha256(body).digest()


@dataclass(slots=True)
class _Entry:
    body: bytes
    began_s: float
    response: Response | None = None

    @property
    def size(self) -> int:
        return 0 if self.response is None else _ENTRY_BYTES + len(self.response.body)


class Repeats:
    def __init__(self) -> None:
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._bytes = 0

    async def once(self, request: Request, tenant: str, raw: Raw, work: Callable[[], Awaitable[Response]]) -> Response:
        """What `work`, which may parse `raw`, answers, or answered before. Errors: `ApiError` 400, 409, those of
        `work`."""
        name = key_of(request)
        if name is None:
            return await work()
        key, said = (tenant, request.url.path, name), digest(raw.data)
        self._forget_old()
        if (entry := self._entries.get(key)) is not None:
            return _again(entry, said)
        entry = self._entries[key] = _Entry(said, time.monotonic())
        try:
            response = await work()
        except BaseException:
            del self._entries[key]
            raise
        if isinstance(response, SseResponse):
            headers = {name: value for name, value in response.headers.items() if name.startswith("x-parrot-")}
            kind = response.headers["content-type"]

            def over(sent: bytes | None) -> None:
                self._keep(key, None if sent is None else Response(sent, media_type=kind, headers=headers))

            response.when_over, response.most_told = over, _LONGEST
        else:
            is_kept = response.status_code == 200 and len(response.body) <= _LONGEST
            self._keep(key, response if is_kept else None)
        return response

    def _keep(self, key: _Key, response: Response | None) -> None:
        """What the first request was answered; `None`: nothing that is worth keeping."""
        if response is None:
            del self._entries[key]
            return
        entry = self._entries[key]
        entry.response = response
        self._bytes += entry.size
        self._forget_old()

    def __len__(self) -> int:
        return len(self._entries)

    def _forget_old(self) -> None:
        """The oldest first; those that still run stay."""
        now_s = time.monotonic()
        old: list[_Key] = []
        for key, entry in self._entries.items():
            if now_s - entry.began_s <= _KEPT_S and self._bytes <= _KEPT_BYTES:
                break
            if entry.response is not None:
                self._bytes -= entry.size
                old.append(key)
        for key in old:
            del self._entries[key]


def _again(entry: _Entry, body: bytes) -> Response:
    if entry.body != body:
        raise ApiError(
            "this Idempotency-Key came with another body; take another key for another request",
            status=409,
            code="idempotency_key_reused",
            headers={"x-should-retry": "false"},
        )
    if entry.response is None:
        raise ApiError(
            "the first request with this Idempotency-Key still runs",
            status=409,
            code="request_in_progress",
            headers={"x-should-retry": "true", "retry-after": "1"},
        )
    headers = {name: value for name, value in entry.response.headers.items() if name.startswith("x-parrot-")}
    media_type = entry.response.headers["content-type"]
    return Response(entry.response.body, media_type=media_type, headers=headers | REPEATED)
