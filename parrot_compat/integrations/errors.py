"""What the openai SDK raises, raised again as one family: everything that a server, or the way to it, can do wrong.

    ParrotAPIError
    ├── ParrotBadRequestError         400  the caller: the request cannot be served as it is
    ├── ParrotContextOverflowError    400  the caller: the prompt leaves no room for an answer in the model's context
    ├── ParrotAuthenticationError     401  the caller: the API key is not known
    ├── ParrotPermissionDeniedError   403  the caller: the key may not do this
    ├── ParrotNotFoundError           404  the caller: no such model (or no such path on that server)
    ├── ParrotConflictError           409  the caller: the thing has been settled already
    ├── ParrotUnprocessableError      422  the caller: as 400, from servers that tell them apart
    ├── ParrotRateLimitError          429  the caller: later
    ├── ParrotRequestError            any other 4xx: a body too large, a failed input, …
    ├── ParrotServerError             5xx  the operator: the server or its engine failed
    ├── ParrotConnectionError         the operator: the server could not be reached, or the connection broke
    ├── ParrotTimeoutError            either: the server did not answer within `timeout`
    └── ParrotStreamError             the operator: a failure inside a stream that had begun well

It knows the SDK and no framework; an integration whose framework has classes of its own says which of them each is.
The invariant: each class is the SDK's class as well, so code that catches either goes on working; and nothing that was
said of the failure is lost on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar, cast

import openai

from parrot_compat.core.shown import shown_error, shown_url

__all__ = [
    "ParrotAPIError",
    "ParrotAuthenticationError",
    "ParrotBadRequestError",
    "ParrotConflictError",
    "ParrotConnectionError",
    "ParrotContextOverflowError",
    "ParrotNotFoundError",
    "ParrotPermissionDeniedError",
    "ParrotRateLimitError",
    "ParrotRequestError",
    "ParrotServerError",
    "ParrotStreamError",
    "ParrotTimeoutError",
    "ParrotUnprocessableError",
    "broken_request",
    "sdk_errors",
    "unreachable",
]


class ParrotAPIError(Exception):
    """Everything that a server, or the way to it, can do wrong."""


class ParrotBadRequestError(openai.BadRequestError, ParrotAPIError):
    """400: the request cannot be served as it is."""


class ParrotContextOverflowError(openai.BadRequestError, ParrotAPIError):
    """400: the prompt leaves no room for an answer in the model's context."""


class ParrotAuthenticationError(openai.AuthenticationError, ParrotAPIError):
    """401: the API key is not known."""


class ParrotPermissionDeniedError(openai.PermissionDeniedError, ParrotAPIError):
    """403: the key may not do this."""


class ParrotNotFoundError(openai.NotFoundError, ParrotAPIError):
    """404: no such model (or no such path on that server)."""


class ParrotConflictError(openai.ConflictError, ParrotAPIError):
    """409: the thing has been settled already."""


class ParrotUnprocessableError(openai.UnprocessableEntityError, ParrotAPIError):
    """422: as 400, from servers that tell them apart."""


class ParrotRateLimitError(openai.RateLimitError, ParrotAPIError):
    """429: later."""


class ParrotServerError(openai.InternalServerError, ParrotAPIError):
    """5xx: the server or its engine failed."""


class ParrotRequestError(openai.APIStatusError, ParrotAPIError):
    """Any other 4xx: a body too large, a failed input, …"""


class ParrotConnectionError(openai.APIConnectionError, ParrotAPIError):
    """The server could not be reached, or the connection broke."""


class ParrotTimeoutError(openai.APITimeoutError, ParrotAPIError):
    """The server did not answer within `timeout`."""


class ParrotStreamError(openai.APIError, ParrotAPIError):
    """The server reported a failure inside a stream that had begun well."""


Kind = TypeVar("Kind", bound=openai.APIError)
Own = Mapping[type[openai.APIError], type[openai.APIError]]
"""What an integration raises in the place of a class of this family: a class that extends it."""

_BY_STATUS: dict[int, type[openai.APIStatusError]] = {
    400: ParrotBadRequestError,
    401: ParrotAuthenticationError,
    403: ParrotPermissionDeniedError,
    404: ParrotNotFoundError,
    409: ParrotConflictError,
    422: ParrotUnprocessableError,
    429: ParrotRateLimitError,
}
_OVERFLOW_CODE = "context_length_exceeded"
_OVERFLOW_WORDS = (
    "prompt is too long",
    "context_length_exceeded",
    "maximum context length",
    "exceeds the context window",
)


@contextmanager
def sdk_errors(own: Own = MappingProxyType({})) -> Iterator[None]:
    """Raise what the SDK raises inside as classes of this family, or as those that stand for them."""
    try:
        yield
    except openai.APIError as error:
        translated = _translated(error, own)
        for note in getattr(error, "__notes__", ()):
            translated.add_note(note)
        raise translated from error
    except Exception as error:
        if (request := broken_request(error)) is None:
            raise
        if any(kind.__name__ == "TimeoutException" for kind in type(error).__mro__):
            raise _own(ParrotTimeoutError, own)(request=request) from error
        broke = _own(ParrotConnectionError, own)
        raise broke(message=f"the connection broke: {error}", request=request) from error


def broken_request(error: Exception) -> Any:
    """The request whose connection broke with this error, if it is one of the SDK's transport, which openai 2 lets out
    while a stream is read."""
    return getattr(error, "request", None) if type(error).__module__.startswith("http") else None


def _own(kind: type[Kind], own: Own) -> type[Kind]:
    return cast("type[Kind]", own.get(kind, kind))


def _translated(error: openai.APIError, own: Own) -> openai.APIError:
    if isinstance(error, openai.APIStatusError):
        kind = _own(_status_kind(error), own)
        return kind(error.message, response=error.response, body=error.body)
    if isinstance(error, openai.APITimeoutError):
        return _own(ParrotTimeoutError, own)(request=error.request)
    if isinstance(error, openai.APIConnectionError):
        return _own(ParrotConnectionError, own)(message=unreachable(error), request=error.request)
    if isinstance(error, openai.APIResponseValidationError):
        return error
    return _own(ParrotStreamError, own)(error.message, error.request, body=error.body)


def _status_kind(error: openai.APIStatusError) -> type[openai.APIStatusError]:
    if error.status_code == 400 and _is_overflow(error):
        return ParrotContextOverflowError
    return _BY_STATUS.get(error.status_code, ParrotServerError if error.status_code >= 500 else ParrotRequestError)


def _is_overflow(error: openai.APIStatusError) -> bool:
    return error.code == _OVERFLOW_CODE or any(words in error.message for words in _OVERFLOW_WORDS)


def unreachable(error: openai.APIConnectionError) -> str:
    """What it says to the user of an app, whose logs may be read by others."""
    reason = f": {shown_error(error.__cause__)}" if error.__cause__ else ""
    return f"no answer from {shown_url(str(error.request.url))}{reason}"
