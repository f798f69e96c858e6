"""Errors as OpenAI's clients read them: one table from `core.errors` to status, type and code.

It knows nothing of endpoints. What core raises is looked up by class; what only HTTP can get wrong (a key,
a path, a body) is an `ApiError`. Everything else is our fault: a 500 that says nothing of the inside.

The invariant: whatever goes wrong, the client reads `{"error": {"message", "type", "param", "code"}}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from parrot_compat.core import errors

__all__ = ["SHUTTING_DOWN", "ApiError", "Problem", "field_path", "invalid", "not_supported_yet", "problem_of", "within"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error, ready to be sent: the status line, the envelope and the headers that go with it."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def envelope(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def body(self) -> bytes:
        return json.dumps(self.envelope()).encode()

    def about(self, param: str) -> Problem:
        """The same of a field that the client calls so."""
        if self.param in (None, param):
            return self
        return replace(self, param=param, message=self.message.replace(str(self.param), param))

    def error(self) -> ApiError:
        """To be raised."""
        return ApiError(
            self.message, status=self.status, type=self.type, code=self.code, param=self.param, headers=self.headers
        )


SHUTTING_DOWN = Problem(
    status=503,
    message="the server is shutting down; what it had not answered yet is cut off",
    type="server_error",
    code="shutting_down",
    headers={"retry-after": "5"},  # by then another one may have its place
)


class ApiError(errors.ParrotError):
    """A request that is wrong as HTTP or as OpenAI's API, before core has seen it. The caller can mend it."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.problem = Problem(
            status=status, message=message, type=type, code=code, param=param, headers=dict(headers or {})
        )


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    type: str
    code: str | None
    should_retry: bool | None = None
    """What `x-should-retry` tells OpenAI's SDKs; `None` leaves it to the status."""


# The nearest class of the error's MRO decides, so a new subclass has its parent's answer until it has a row.
_TABLE: dict[type[BaseException], _Row] = {
    errors.CallerError: _Row(400, "invalid_request_error", "invalid_request"),
    errors.BadTemplate: _Row(400, "invalid_request_error", "invalid_template"),
    errors.BadPrompt: _Row(400, "invalid_request_error", "invalid_prompt"),
    errors.BadSchema: _Row(400, "invalid_request_error", "invalid_schema"),
    errors.PromptTooLong: _Row(400, "invalid_request_error", "context_length_exceeded"),
    errors.CycleInGraph: _Row(400, "invalid_request_error", "cycle_in_graph"),
    errors.TransformFailed: _Row(400, "invalid_request_error", "transform_failed"),
    errors.UnknownVariable: _Row(404, "invalid_request_error", "variable_not_found"),
    errors.UnknownSession: _Row(404, "invalid_request_error", "session_not_found"),
    errors.UnknownPlan: _Row(404, "invalid_request_error", "plan_not_found", should_retry=False),
    errors.AlreadySettled: _Row(409, "invalid_request_error", "already_settled", should_retry=False),
    errors.LimitError: _Row(429, "rate_limit_error", "rate_limit_exceeded"),
    errors.SessionFull: _Row(429, "rate_limit_error", "sessions_full", should_retry=False),
    errors.QueueFull: _Row(503, "server_error", "queue_full"),
    # The manager has already tried again where that was safe: an SDK that tries twice more only adds load.
    errors.EngineError: _Row(502, "server_error", "engine_error", should_retry=False),
    errors.EngineLost: _Row(502, "server_error", "engine_lost", should_retry=False),
    errors.ContextLost: _Row(502, "server_error", "context_lost", should_retry=False),
    errors.NoEngineForModel: _Row(404, "invalid_request_error", "model_not_found", should_retry=False),
    errors.ModelAway: _Row(503, "server_error", "model_away"),
    errors.ModelRefused: _Row(503, "server_error", "model_refused", should_retry=False),
    errors.UpstreamFailed: _Row(424, "invalid_request_error", "upstream_failed", should_retry=False),
    errors.Cancelled: _Row(499, "cancelled", "cancelled", should_retry=False),
    errors.ParrotError: _Row(500, "server_error", "server_error"),
}

# LangChain and others find an overflow by these words in the message, not by its code.
_TOO_LONG = "prompt is too long"


def problem_of(error: BaseException) -> Problem:
    """The answer to an error. One that was not raised on purpose says nothing of the inside."""
    if isinstance(error, ApiError):
        return error.problem
    if not isinstance(error, errors.ParrotError):
        message = "the server failed inside; its log has the reason"
        return Problem(status=500, message=message, type="server_error", code="server_error")
    row = next(_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE)
    headers: dict[str, str] = {}
    if row.should_retry is not None:
        headers["x-should-retry"] = "true" if row.should_retry else "false"
    if isinstance(error, errors.LimitError):
        wait_s = max(0.0, error.retry_after_s)
        headers["retry-after"] = str(max(1, round(wait_s)))
        headers["retry-after-ms"] = str(round(wait_s * 1000))
    message = error.message or type(error).__name__
    if isinstance(error, errors.PromptTooLong) and _TOO_LONG not in message:
        message = f"{_TOO_LONG}: {message}"
    return Problem(
        status=row.status,
        message=message,
        type=row.type,
        code=row.code,
        param=error.variable if isinstance(error, errors.UpstreamFailed) else getattr(error, "param", None),
        headers=headers,
    )


def invalid(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """The field `param` has a value that it cannot have."""
    return ApiError(f"{param}: {message}", code=code, param=param)


def not_supported_yet(param: str, what: str = "") -> ApiError:
    """A parameter that is OpenAI's (or vLLM's) and that this server would have to ignore: it says so instead."""
    detail = f": {what}" if what else ""
    return ApiError(
        f"{param!r} is not supported yet by parrot_compat{detail}. Leave it out.",
        code="unsupported_parameter",
        param=param,
    )


def within(error: errors.ParrotError, path: str) -> ApiError:
    """The error of a part of a body, told of the whole body: `path` goes before the field that it names."""
    problem = problem_of(error)
    message, param = problem.message, path
    if problem.param:
        param = f"{path}.{problem.param}"
        message = message.removeprefix(f"{problem.param}: ")
    return replace(problem, message=f"{param}: {message}", param=param).error()


def field_path(parts: Sequence[str | int]) -> str:
    """('messages', 0, 'role') → "messages[0].role", the way OpenAI names a field."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
