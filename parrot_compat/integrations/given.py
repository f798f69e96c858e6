"""What an app gives a model's class, as ours takes it: `None` where ours has a default, limits of time in every form.

It knows annotations and no framework. The invariant: a value never means something else here, and a `None` that a field
has a meaning for stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

__all__ = ["Timeout", "connect_and_read_s", "plain_timeout", "takes_none", "without_nones"]

Timeout = float | tuple[float | None, float | None] | None
"""Seconds without a byte from the server, or of connecting and then of that; `None`: without end."""


def takes_none(annotation: Any) -> bool:
    return annotation in (Any, None, object) or type(None) in get_args(annotation)


def without_nones(given: Mapping[str, Any], annotations: Mapping[str, Any]) -> dict[str, Any]:
    """`given` without each `None` that its annotation has no place for: the field's default counts, and so does the
    environment."""
    return {
        name: value
        for name, value in given.items()
        if value is not None or name not in annotations or takes_none(annotations[name])
    }


def plain_timeout(given: Any) -> Any:
    """An `httpx.Timeout` (`openai.Timeout`) as a pair; anything else as it is."""
    if hasattr(given, "connect") and hasattr(given, "read"):
        return given.connect, given.read
    return given


def connect_and_read_s(timeout: Timeout) -> tuple[float | None, float | None]:
    return timeout if isinstance(timeout, tuple) else (None, timeout)
