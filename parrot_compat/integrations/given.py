"""What an app gives a model's class: of an argument that is `None` where the class wants a value, nothing.

Classes that ours take the place of have `None` where ours have a default. It knows annotations and no framework. The
invariant: a value is never changed, and a `None` that a field has a meaning for stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

__all__ = ["takes_none", "without_nones"]


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
