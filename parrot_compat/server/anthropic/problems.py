"""Errors as Anthropic's clients read them, on the paths of Anthropic's API; everywhere else they are OpenAI's.

It knows nothing of what went wrong: `server.errors` has the table. The invariant: status and message are the same in
both envelopes.
"""

from __future__ import annotations

import json
from typing import Any

from parrot_compat.server.errors import Problem

__all__ = ["body_of", "envelope_of", "is_anthropics"]

_PATH = "/v1/messages"
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def is_anthropics(path: str) -> bool:
    return path == _PATH or path.startswith(f"{_PATH}/")


def envelope_of(problem: Problem) -> dict[str, Any]:
    usual = "api_error" if problem.status >= 500 else "invalid_request_error"
    return {"type": "error", "error": {"type": _TYPES.get(problem.status, usual), "message": problem.message}}


def body_of(problem: Problem, path: str) -> bytes:
    """What is sent of a problem with a request to this path."""
    return json.dumps(envelope_of(problem)).encode() if is_anthropics(path) else problem.body()
