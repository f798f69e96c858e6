"""References: parts of a request that stand for the output of another call, or for a variable of the session.

It knows nothing of messages. Errors name the reference by its path in the request.

The invariants: a reference leads to a variable of the request's own session, or the request is refused; its transforms
are made once it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from parrot_compat.core.errors import BadTemplate, CallerError
from parrot_compat.core.prompt import Input
from parrot_compat.core.transform import Transform, parse_transforms
from parrot_compat.server.errors import ApiError, invalid, not_supported_yet

from .directory import Known

__all__ = ["Reference", "References", "transforms_of"]


class Reference(Protocol):
    """What a part says: one of these, and how it is to be seen."""

    @property
    def call(self) -> str | None: ...
    @property
    def variable(self) -> str | None: ...
    @property
    def response_id(self) -> str | None: ...
    @property
    def transform(self) -> Any: ...


class References:
    """Of one request. `planned` are the outputs of calls that are about to be submitted together; they hide those of
    the session. `is_apart`: it is not the session that was asked for, because sessions keep as much as they may."""

    def __init__(self, known: Known, planned: Mapping[str, str] | None = None, *, is_apart: bool = False) -> None:
        self._known = known
        self._planned = planned or {}
        self._is_apart = is_apart
        self._patterns: set[str] = set()

    def __call__(self, part: Reference, path: str) -> Input:
        """What the part stands for. Errors: `ApiError` 400, 404, `SessionFull`."""
        variable = self._led_to(part, path)
        return Input(variable, transforms_of(part.transform, path, self._patterns))

    def _led_to(self, part: Reference, path: str) -> str:
        if part.response_id is not None:
            raise not_supported_yet(f"{path}.response_id", "no responses are stored here")
        if (part.call is None) == (part.variable is None):
            raise invalid(path, "a reference names either a call or a variable")
        if self._is_apart and part.call not in self._planned:
            self._known.session.kept.must_have_room()  # says why it is not found
        if part.call is not None:
            return self._output(part.call, f"{path}.call")
        assert part.variable is not None
        return self._variable(part.variable, f"{path}.variable")

    def _output(self, call: str, path: str) -> str:
        if call in self._planned:
            return self._planned[call]
        try:
            return self._known.task(call).call.output
        except CallerError:
            raise _unknown(path, f"there is no call {call[:64]!r} in this session") from None

    def _variable(self, variable: str, path: str) -> str:
        try:
            return self._known.variable(variable).name
        except CallerError:
            raise _unknown(path, f"there is no variable {variable[:64]!r} in this session") from None


def transforms_of(said: Any, path: str, patterns: set[str]) -> tuple[Transform, ...]:
    """Of the reference that has this path; `patterns` are those of its request. Errors: `ApiError` 400."""
    try:
        return parse_transforms(said, patterns)
    except BadTemplate as error:
        raise invalid(f"{path}.transform", error.message, "invalid_template") from None


def _unknown(path: str, message: str) -> ApiError:
    return ApiError(f"{path}: {message}", status=404, code="variable_not_found", param=path)
