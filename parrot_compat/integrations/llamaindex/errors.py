"""Errors as LlamaIndex apps catch them: one family, `ParrotLLMError`, and each is the openai SDK's class as well.

It knows nothing of requests. LlamaIndex has no error classes of its own; its OpenAI class lets the SDK's out, so code
that catches those goes on working.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import openai

from parrot_compat.integrations.sdk_errors import ErrorKinds, raised_as

__all__ = [
    "ParrotAuthenticationError",
    "ParrotBadRequestError",
    "ParrotConnectionError",
    "ParrotContextOverflowError",
    "ParrotLLMError",
    "ParrotNotFoundError",
    "ParrotPermissionDeniedError",
    "ParrotRateLimitError",
    "ParrotRequestError",
    "ParrotServerError",
    "ParrotStreamError",
    "ParrotTimeoutError",
    "sdk_errors",
]


class ParrotLLMError(Exception):
    """Everything that a server, or the way to it, can do wrong."""


class ParrotBadRequestError(openai.BadRequestError, ParrotLLMError):
    """400: the request cannot be served as it is."""


class ParrotContextOverflowError(openai.BadRequestError, ParrotLLMError):
    """400: the prompt leaves no room for an answer in the model's context."""


class ParrotAuthenticationError(openai.AuthenticationError, ParrotLLMError):
    """401: the API key is not known."""


class ParrotPermissionDeniedError(openai.PermissionDeniedError, ParrotLLMError):
    """403: the key may not do this."""


class ParrotNotFoundError(openai.NotFoundError, ParrotLLMError):
    """404: no such model (or no such path on that server)."""


class ParrotRateLimitError(openai.RateLimitError, ParrotLLMError):
    """429: later."""


class ParrotServerError(openai.InternalServerError, ParrotLLMError):
    """5xx: the server or its engine failed."""


class ParrotRequestError(openai.APIStatusError, ParrotLLMError):
    """Any other 4xx: a body too large, a failed input, …"""


class ParrotConnectionError(openai.APIConnectionError, ParrotLLMError):
    """The server could not be reached, or the connection broke."""


class ParrotTimeoutError(openai.APITimeoutError, ParrotLLMError):
    """The server did not answer within `timeout`."""


class ParrotStreamError(openai.APIError, ParrotLLMError):
    """The server reported a failure inside a stream that had begun well."""


_KINDS = ErrorKinds(
    by_status={
        400: ParrotBadRequestError,
        401: ParrotAuthenticationError,
        403: ParrotPermissionDeniedError,
        404: ParrotNotFoundError,
        429: ParrotRateLimitError,
    },
    overflow=ParrotContextOverflowError,
    request=ParrotRequestError,
    server=ParrotServerError,
    connection=ParrotConnectionError,
    timeout=ParrotTimeoutError,
    stream=ParrotStreamError,
)


def sdk_errors() -> AbstractContextManager[None]:
    """Raise what the SDK raises inside as this module's classes."""
    return raised_as(_KINDS)
