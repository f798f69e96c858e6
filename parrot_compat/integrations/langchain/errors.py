"""Errors as LangChain apps catch them: each is the openai SDK's class and langchain-core's class at once.

It knows nothing of requests. `with sdk_errors():` around a call of the SDK is all that is needed; code that
catches either family goes on working, and `is_retryable` (langchain-core) is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import openai
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)

__all__ = [
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
    "sdk_errors",
]


class ParrotBadRequestError(openai.BadRequestError, ModelInvalidRequestError):
    """400: the request cannot be served as it is."""


class ParrotContextOverflowError(openai.BadRequestError, ContextOverflowError):
    """400: the prompt leaves no room for an answer in the model's context."""


class ParrotAuthenticationError(openai.AuthenticationError, ModelAuthenticationError):
    """401: the API key is not known."""


class ParrotPermissionDeniedError(openai.PermissionDeniedError, ModelPermissionDeniedError):
    """403: the key may not do this."""


class ParrotNotFoundError(openai.NotFoundError, ModelNotFoundError):
    """404: no such model (or no such path on that server)."""


class ParrotConflictError(openai.ConflictError, ModelInvalidRequestError):
    """409: the thing has been settled already."""


class ParrotUnprocessableError(openai.UnprocessableEntityError, ModelInvalidRequestError):
    """422: as 400, from servers that tell them apart."""


class ParrotRateLimitError(openai.RateLimitError, ModelRateLimitError):
    """429: later."""


class ParrotServerError(openai.InternalServerError, ModelAPIError):
    """5xx: the server or its engine failed."""


class ParrotRequestError(openai.APIStatusError, ModelInvalidRequestError):
    """Any other 4xx: a body too large, a failed input, …"""


class ParrotConnectionError(openai.APIConnectionError, ModelConnectionError):
    """The server could not be reached, or the connection broke."""


class ParrotTimeoutError(openai.APITimeoutError, ModelTimeoutError):
    """The server did not answer within `timeout`."""


class ParrotStreamError(openai.APIError, ModelAPIError):
    """The server reported a failure inside a stream that had begun well."""


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
def sdk_errors() -> Iterator[None]:
    """Raise what the SDK raises inside as this module's classes."""
    try:
        yield
    except openai.APIError as error:
        translated = _translated(error)
        for note in getattr(error, "__notes__", ()):
            translated.add_note(note)
        raise translated from error
    except Exception as error:
        # openai 2 lets its transport's own errors out while a stream is read.
        request = getattr(error, "request", None)
        if request is None or not type(error).__module__.startswith("http"):
            raise
        raise ParrotConnectionError(message=f"the connection broke: {error}", request=request) from error


def _translated(error: openai.APIError) -> openai.APIError:
    if isinstance(error, openai.APIStatusError):
        kind = _BY_STATUS.get(error.status_code, ParrotServerError if error.status_code >= 500 else ParrotRequestError)
        if error.status_code == 400 and _is_overflow(error):
            kind = ParrotContextOverflowError
        return kind(error.message, response=error.response, body=error.body)
    if isinstance(error, openai.APITimeoutError):
        return ParrotTimeoutError(request=error.request)
    if isinstance(error, openai.APIConnectionError):
        return ParrotConnectionError(message=_unreachable(error), request=error.request)
    if isinstance(error, openai.APIResponseValidationError):
        return error
    return ParrotStreamError(error.message, error.request, body=error.body)


def _is_overflow(error: openai.APIStatusError) -> bool:
    return error.code == _OVERFLOW_CODE or any(words in error.message for words in _OVERFLOW_WORDS)


def _unreachable(error: openai.APIConnectionError) -> str:
    reason = f": {error.__cause__}" if error.__cause__ else ""
    return f"no answer from {error.request.url}{reason}"
