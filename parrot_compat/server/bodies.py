"""Bodies: the reading of a JSON body, within its limits and those of all bodies together.

It knows no endpoint: a schema comes in, a checked object goes out. Every way in which a body can be wrong
(too long, not UTF-8, not JSON, too deep, a wrong field, never whole) leaves here as a 4xx that names what is wrong.

The invariant: no more than `RequestLimits.body_bytes` of a body are ever held, and none that does not go on coming; the
bodies of requests that are not answered yet count, as what is made of them may be as large.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from parrot_compat.core.errors import Cancelled, ParrotError, QueueFull, TooManyCalls

from .amounts import MOST_PIECES, holds_more
from .errors import ApiError, field_path
from .limits import RequestLimits

__all__ = ["Items", "OpenBodies", "Raw", "Schema", "explain", "forget_unknown", "parse", "read_body", "read_raw"]


class Schema(BaseModel):
    """Root of every request schema. JSON types are taken as they are ("1" is no number); unknown fields are
    kept aside, so that the answer can name them."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True
    )
    most_pieces: ClassVar[int] = MOST_PIECES
    """Of a body."""


S = TypeVar("S", bound=Schema)
T = TypeVar("T")
Items = Annotated[list[T], Field(fail_fast=True)]
"""A list in a request. The first wrong item ends it: a million of them must not make a million errors."""
_PATIENCE_S = 1.0
"""For the rest of a body that is refused."""


def forget_unknown(part: Schema) -> None:
    """Fields that are not known are named, and of no use beyond that; what is known may be kept for days."""
    if part.model_extra:
        part.model_extra.clear()
    for name in type(part).model_fields:
        value = getattr(part, name)
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, Schema):
                forget_unknown(item)


class Raw:
    """A body as it came, until it is parsed: what it says is there once more then, and a request may wait for days."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def parse(self, schema: type[S]) -> S:
        """Errors: `ApiError` 400."""
        data, self.data = self.data, b""
        return parse(data, schema)


class OpenBodies:
    """ASGI middleware around the endpoints: what is read within a request is counted until its answer is sent."""

    def __init__(self, app: ASGIApp, limits: RequestLimits, *, is_shared: bool) -> None:
        """`is_shared`: there are several tenants, none of which may have all of it."""
        self._app = app
        self._room = _Room(limits, is_shared)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        state = scope["state"]
        state["body"] = body = _Open(self._room, state["tenant"])
        try:
            await self._app(scope, receive, send)
        finally:
            body.release()


class _Room:
    """For all bodies of a server."""

    def __init__(self, limits: RequestLimits, is_shared: bool) -> None:
        self._most = limits.open_body_bytes
        self._most_of_tenant = self._most // 2 if is_shared else None
        self._taken: Counter[str] = Counter()

    def take(self, tenant: str, size: int) -> None:
        """Errors: `TooManyCalls`, `QueueFull`; then nothing is counted."""
        made = f"{size} bytes more would make the bodies of requests that are not answered yet"
        share = self._most_of_tenant
        if share is not None and (taken := self._taken[tenant] + size) > share:
            raise TooManyCalls(f"{made} {taken} bytes for this tenant; the limit is {share}")
        if (taken := self._taken.total() + size) > self._most:
            raise QueueFull(f"{made} {taken} bytes here; the limit is {self._most}")
        self._taken[tenant] += size

    def give_back(self, tenant: str, size: int) -> None:
        self._taken[tenant] -= size
        if not self._taken[tenant]:
            del self._taken[tenant]


class _Open:
    """The body of one request."""

    def __init__(self, room: _Room, tenant: str) -> None:
        self._room = room
        self._tenant = tenant
        self._size = 0

    def hold(self, size: int) -> None:
        """It has so many bytes, or will have. Errors: `TooManyCalls`, `QueueFull`."""
        if size > self._size:
            self._room.take(self._tenant, size - self._size)
            self._size = size

    def release(self) -> None:
        self._room.give_back(self._tenant, self._size)
        self._size = 0


async def read_body(request: Request, schema: type[S], limits: RequestLimits) -> S:
    """The body as `schema`. Errors: `ApiError` 400, 408, 413, 415, `TooManyCalls`, `QueueFull`."""
    return parse(await read_raw(request, limits), schema)


async def read_raw(request: Request, limits: RequestLimits) -> bytes:
    """The body as it came. Errors: `ApiError` 408, 413, 415, `TooManyCalls`, `QueueFull`."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        message = f"content-encoding {encoding[:40]!r} is not taken; send plain JSON"
        raise ApiError(message, status=415, code="unsupported_encoding")
    return await _read(request, limits)


def parse(body: bytes, schema: type[S]) -> S:
    """Errors: `ApiError` 400, 413."""
    if not body.strip():
        raise ApiError("the body is empty; a JSON object is wanted", code="invalid_json")
    if holds_more(body, schema.most_pieces):
        message = f"the body holds more than {schema.most_pieces} texts, lists, objects and members of objects"
        raise ApiError(message, status=413, code="body_too_large")
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise explain(error) from None


async def _read(request: Request, limits: RequestLimits) -> bytes:
    body: _Open = request.state.body
    declared = request.headers.get("content-length", "")
    chunks: list[bytes] = []
    held, stream, pace = 0, request.stream(), _Pace(limits)

    async def hold(size: int) -> None:
        try:
            if size > limits.body_bytes:
                message = f"the body is longer than {limits.body_bytes} bytes"
                raise ApiError(message, status=413, code="body_too_large")
            body.hold(size)
        except ParrotError:
            chunks.clear()
            body.release()
            await _pass_over(stream, 4 * limits.body_bytes)
            raise

    try:
        if declared.isascii() and declared.isdigit():
            await hold(int(declared))  # at once: of many that come side by side some are read then, and not none
        while (chunk := await pace.piece(stream)) is not None:
            held += len(chunk)
            await hold(held)
            chunks.append(chunk)
    except ClientDisconnect:
        raise Cancelled("the client left amid its request") from None
    return b"".join(chunks)


class _Pace:
    """Of one body that comes."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._begin()

    async def piece(self, stream: AsyncIterator[bytes]) -> bytes | None:
        """The next piece; `None` behind the last. Errors: `ApiError` 408."""
        try:
            async with asyncio.timeout_at(self._due_s):
                piece = await anext(stream, None)
        except TimeoutError:
            least, came = self._limits.pace_bytes, self._limits.pace_bytes - self._missing
            raise ApiError(
                f"the body stopped in the midst, or nearly: in {self._limits.pace_s:g} s {came} bytes of it came, and"
                f" {least} have to, or what is left",
                status=408,
                code="body_timeout",
                headers={"connection": "close"},  # what is still to come of it would be read as another request
            ) from None
        self._missing -= len(piece or b"")
        if self._missing <= 0:
            self._begin()
        return piece

    def _begin(self) -> None:
        self._missing = self._limits.pace_bytes
        self._due_s = asyncio.get_running_loop().time() + self._limits.pace_s


async def _pass_over(stream: AsyncIterator[bytes], most: int) -> None:
    """Let a client finish what it sends, as far as that is soon and not endless: a connection that is closed under its
    hands takes our answer with it."""
    passed = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            async for chunk in stream:
                passed += len(chunk)
                if passed > most:
                    return


def explain(error: ValidationError) -> ApiError:
    """The first thing that is wrong, by name; the input itself is not repeated (it may be large, or secret)."""
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    if first["type"] == "json_invalid":
        return ApiError(f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}", code="invalid_json")
    param = field_path([_short(part) for part in first["loc"] if not _is_branch(part)]) or None
    more = f" ({len(others)} more)" if others else ""
    what = first["msg"].removeprefix("Value error, ")
    message = f"{param}: {what}{more}" if param else f"{what}{more}"
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(message, code=code, param=param)


def _is_branch(part: str | int) -> bool:
    """pydantic names the branch of a union ("list[int]", "constrained-str") as if it were a field."""
    return isinstance(part, str) and ("[" in part or "-" in part or part in {"str", "int", "float", "bool"})


def _short(part: str | int) -> str | int:
    return part[:64] if isinstance(part, str) else part
