"""Errors as LangChain apps catch them: those of `integrations.errors`, each of which is langchain-core's class too.

It knows nothing of requests. `with sdk_errors():` around a call of the SDK is all that is needed; code that catches
either family, or the SDK's, goes on working, and `is_retryable` (langchain-core) is right.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

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

from parrot_compat.integrations import errors

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


class ParrotBadRequestError(errors.ParrotBadRequestError, ModelInvalidRequestError): ...


class ParrotContextOverflowError(errors.ParrotContextOverflowError, ContextOverflowError): ...


class ParrotAuthenticationError(errors.ParrotAuthenticationError, ModelAuthenticationError): ...


class ParrotPermissionDeniedError(errors.ParrotPermissionDeniedError, ModelPermissionDeniedError): ...


class ParrotNotFoundError(errors.ParrotNotFoundError, ModelNotFoundError): ...


class ParrotConflictError(errors.ParrotConflictError, ModelInvalidRequestError): ...


class ParrotUnprocessableError(errors.ParrotUnprocessableError, ModelInvalidRequestError): ...


class ParrotRateLimitError(errors.ParrotRateLimitError, ModelRateLimitError): ...


class ParrotServerError(errors.ParrotServerError, ModelAPIError): ...


class ParrotRequestError(errors.ParrotRequestError, ModelInvalidRequestError): ...


class ParrotConnectionError(errors.ParrotConnectionError, ModelConnectionError): ...


class ParrotTimeoutError(errors.ParrotTimeoutError, ModelTimeoutError): ...


class ParrotStreamError(errors.ParrotStreamError, ModelAPIError): ...


_OWN = {
    kind.__bases__[0]: kind
    for kind in (
        ParrotAuthenticationError,
        ParrotBadRequestError,
        ParrotConflictError,
        ParrotConnectionError,
        ParrotContextOverflowError,
        ParrotNotFoundError,
        ParrotPermissionDeniedError,
        ParrotRateLimitError,
        ParrotRequestError,
        ParrotServerError,
        ParrotStreamError,
        ParrotTimeoutError,
        ParrotUnprocessableError,
    )
}


def sdk_errors() -> AbstractContextManager[None]:
    """Raise what the SDK raises inside as this module's classes."""
    return errors.sdk_errors(_OWN)
