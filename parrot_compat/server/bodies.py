"""Bodies: the reading of a JSON body, within its limits.

It knows no endpoint: a schema comes in, a checked object goes out. Every way in which a body can be wrong
(too long, not UTF-8, not JSON, too deep, a wrong field, never whole) leaves here as a 4xx that names what is wrong.

The invariant: no more than `RequestLimits.body_bytes` of a body are ever held, and none that does not go on coming.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from parrot_compat.core.errors import Cancelled

from .errors import ApiError, field_path
from .limits import RequestLimits

__all__ = ["Items", "Schema", "explain", "parse", "read_body", "read_raw"]


class Schema(BaseModel):
    """Root of every request schema. JSON types are taken as they are ("1" is no number); unknown fields are
    kept aside, so that the answer can name them."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True
    )


S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")
Items = Annotated[list[T], Field(fail_fast=True)]
"""A list in a request. The first wrong item ends it: a million of them must not make a million errors."""
_PATIENCE_S = 1.0
"""For the rest of a body that is refused."""
_LONGEST_PAUSE_S = 60.0
"""Between two pieces of a body. On the worst of lines something comes sooner; who sends nothing holds a connection."""


async def read_body(request: Request, schema: type[S], limits: RequestLimits) -> S:
    """The body as `schema`. Errors: `ApiError` 400, 408, 413, 415."""
    return parse(await read_raw(request, limits), schema)


async def read_raw(request: Request, limits: RequestLimits) -> bytes:
    """The body as it came. Errors: `ApiError` 408, 413, 415."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        message = f"content-encoding {encoding[:40]!r} is not taken; send plain JSON"
        raise ApiError(message, status=415, code="unsupported_encoding")
    return await _read(request, limits.body_bytes)


def parse(body: bytes, schema: type[S]) -> S:
    """Errors: `ApiError` 400."""
    if not body.strip():
        raise ApiError("the body is empty; a JSON object is wanted", code="invalid_json")
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise explain(error) from None


async def _read(request: Request, most: int) -> bytes:
    too_large = ApiError(f"the body is longer than {most} bytes", status=413, code="body_too_large")
    declared = request.headers.get("content-length", "")
    chunks: list[bytes] = []
    held, stream = 0, request.stream()
    try:
        if declared.isascii() and declared.isdigit() and int(declared) > most:
            await _pass_over(stream, 4 * most)
            raise too_large
        while (chunk := await _piece(stream)) is not None:
            held += len(chunk)
            if held > most:
                chunks.clear()
                await _pass_over(stream, 4 * most)
                raise too_large
            chunks.append(chunk)
    except ClientDisconnect:
        raise Cancelled("the client left amid its request") from None
    return b"".join(chunks)


async def _piece(stream: AsyncIterator[bytes]) -> bytes | None:
    """The next piece of a body; `None` behind the last. Errors: `ApiError` 408."""
    try:
        async with asyncio.timeout(_LONGEST_PAUSE_S):
            return await anext(stream, None)
    except TimeoutError:
        raise ApiError(
            f"the body stopped in the midst: nothing came for {_LONGEST_PAUSE_S:g} s",
            status=408,
            code="body_timeout",
            headers={"connection": "close"},  # what is still to come of it would be read as another request
        ) from None


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
