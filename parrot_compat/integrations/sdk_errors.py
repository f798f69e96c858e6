"""What the openai SDK raises, raised again as classes that the app's framework knows.

It knows the SDK and no framework: an integration says which of its classes stands for what. The invariant: each class
is the SDK's class as well, so code that catches either goes on working; and nothing that was said of the failure is
lost on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import openai

__all__ = ["ErrorKinds", "raised_as"]

_OVERFLOW_CODE = "context_length_exceeded"
_OVERFLOW_WORDS = (
    "prompt is too long",
    "context_length_exceeded",
    "maximum context length",
    "exceeds the context window",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorKinds:
    """The classes of one integration."""

    by_status: Mapping[int, type[openai.APIStatusError]]
    overflow: type[openai.BadRequestError]
    """A 400 that says: the prompt leaves no room for an answer in the model's context."""
    request: type[openai.APIStatusError]
    """Any other 4xx."""
    server: type[openai.InternalServerError]
    connection: type[openai.APIConnectionError]
    timeout: type[openai.APITimeoutError]
    stream: type[openai.APIError]
    """A failure that the server reported inside a stream that had begun well."""


@contextmanager
def raised_as(kinds: ErrorKinds) -> Iterator[None]:
    """Raise what the SDK raises inside as one of these classes."""
    try:
        yield
    except openai.APIError as error:
        translated = _translated(error, kinds)
        for note in getattr(error, "__notes__", ()):
            translated.add_note(note)
        raise translated from error
    except Exception as error:
        # openai 2 lets its transport's own errors out while a stream is read.
        request = getattr(error, "request", None)
        if request is None or not type(error).__module__.startswith("http"):
            raise
        raise kinds.connection(message=f"the connection broke: {error}", request=request) from error


def _translated(error: openai.APIError, kinds: ErrorKinds) -> openai.APIError:
    if isinstance(error, openai.APIStatusError):
        kind = kinds.by_status.get(error.status_code, kinds.server if error.status_code >= 500 else kinds.request)
        if error.status_code == 400 and _is_overflow(error):
            kind = kinds.overflow
        return kind(error.message, response=error.response, body=error.body)
    if isinstance(error, openai.APITimeoutError):
        return kinds.timeout(request=error.request)
    if isinstance(error, openai.APIConnectionError):
        return kinds.connection(message=_unreachable(error), request=error.request)
    if isinstance(error, openai.APIResponseValidationError):
        return error
    return kinds.stream(error.message, error.request, body=error.body)


def _is_overflow(error: openai.APIStatusError) -> bool:
    return error.code == _OVERFLOW_CODE or any(words in error.message for words in _OVERFLOW_WORDS)


def _unreachable(error: openai.APIConnectionError) -> str:
    reason = f": {error.__cause__}" if error.__cause__ else ""
    return f"no answer from {error.request.url}{reason}"
