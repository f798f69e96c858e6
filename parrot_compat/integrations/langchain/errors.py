"""Errors as LangChain apps catch them: each is the openai SDK's class and langchain-core's class at once.

It knows nothing of requests. `with sdk_errors():` around a call of the SDK is all that is needed; code that
catches either family goes on working, and `is_retryable` (langchain-core) is right.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

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

from parrot_compat.integrations.sdk_errors import ErrorKinds, raised_as

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


_KINDS = ErrorKinds(
    by_status={
        400: ParrotBadRequestError,
        401: ParrotAuthenticationError,
        403: ParrotPermissionDeniedError,
        404: ParrotNotFoundError,
        409: ParrotConflictError,
        422: ParrotUnprocessableError,
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
