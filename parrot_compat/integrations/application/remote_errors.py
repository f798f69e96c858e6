"""A server's errors as `core.errors`: the envelope read back into the tree, by its code.

It is the inverse of the server's table and shares no code with it; a test holds the two together.

The invariant: whoever catches a class of the tree around an app catches it wherever the app runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import openai

from parrot_compat.core import errors
from parrot_compat.integrations.errors import broken_request, unreachable

from .host import NotAParrotServer, ServerUnreachable

__all__ = ["error_of", "tree_errors"]

_BY_CODE: dict[str, type[errors.ParrotError]] = {
    "invalid_template": errors.BadTemplate,
    "invalid_prompt": errors.BadPrompt,
    "invalid_schema": errors.BadSchema,
    "context_length_exceeded": errors.PromptTooLong,
    "cycle_in_graph": errors.CycleInGraph,
    "variable_not_found": errors.UnknownVariable,
    "session_not_found": errors.UnknownSession,
    "plan_not_found": errors.UnknownPlan,
    "already_settled": errors.AlreadySettled,
    "transform_failed": errors.TransformFailed,
    "rate_limit_exceeded": errors.TooManyCalls,
    "queue_full": errors.QueueFull,
    "sessions_full": errors.SessionFull,
    "engine_error": errors.EngineError,
    "engine_lost": errors.EngineLost,
    "context_lost": errors.ContextLost,
    "model_not_found": errors.NoEngineForModel,
    "model_away": errors.ModelAway,
    "model_refused": errors.ModelRefused,
    "upstream_failed": errors.UpstreamFailed,
    "cancelled": errors.Cancelled,
}


@contextmanager
def tree_errors() -> Iterator[None]:
    """Raise what the SDK raises inside as classes of the tree."""
    try:
        yield
    except openai.APIStatusError as error:
        raise error_of(error.body, status=error.status_code, headers=error.response.headers) from error
    except openai.APIConnectionError as error:
        raise ServerUnreachable(unreachable(error)) from error
    except openai.APIError as error:  # inside a stream that had begun well
        raise error_of(error.body or {"message": error.message}) from error
    except Exception as error:
        if broken_request(error) is None:
            raise
        raise ServerUnreachable(f"the connection broke: {error}") from error


def error_of(body: Any, *, status: int = 0, headers: Mapping[str, str] | None = None) -> errors.ParrotError:
    """The error in an envelope's `error` object."""
    if not isinstance(body, Mapping) or not isinstance(body.get("message"), str):
        return NotAParrotServer(f"it answered {status} without saying why")
    message, param, code = body["message"], body.get("param"), body.get("code")
    kind = _BY_CODE.get(code or "")
    if kind is None:
        kind = errors.CallerError if 400 <= status < 500 else errors.ParrotError
    if issubclass(kind, errors.UpstreamFailed):
        return _upstream(message, param)
    if issubclass(kind, errors.LimitError):
        return kind(message, _wait_s(headers or {}))
    return kind(message, param) if issubclass(kind, errors.CallerError) else kind(message)


def _upstream(message: str, param: str | None) -> errors.UpstreamFailed:
    """Which variable, and why, as far as the envelope tells: the cause's own class is not in it."""
    head, _, cause = message.partition(" failed: ")
    variable = param or head.removeprefix("input variable ").strip("'\"")
    return errors.UpstreamFailed(variable, errors.ParrotError(cause or message))


def _wait_s(headers: Mapping[str, str]) -> float:
    try:
        return float(headers["retry-after-ms"]) / 1000
    except (KeyError, ValueError):
        return 1.0
