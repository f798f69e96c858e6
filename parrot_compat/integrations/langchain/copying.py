"""Functions that only move text: they pick, order and join what they are given, and never look at it.

It knows functions, and nothing of plans. A function like that can run on texts which do not exist yet.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from operator import itemgetter
from typing import Any, TypeVar

__all__ = ["copy_only", "is_copy_only"]

F = TypeVar("F", bound=Callable[..., Any])

DECLARED = "__parrot_copy_only__"


def copy_only(function: F) -> F:
    """Declare that a function only copies: what it returns is made of its inputs' texts by picking, ordering,
    joining and adding constant text. It must not branch on a text, measure it, cut it or change it, and must
    have no side effects: the planner runs it ahead of the app, on placeholders.

    ```python
    @copy_only
    def bullets(summaries):
        return "\\n".join(f"- {summary}" for summary in summaries)

    chain = summarise.map() | bullets | combine
    ```
    """
    setattr(function, DECLARED, True)
    return function


def is_copy_only(function: object) -> bool:
    """Declared, or known: `operator.itemgetter(...)` and `"separator".join`."""
    if isinstance(function, itemgetter):
        return True
    if isinstance(function, types.BuiltinMethodType):
        return function.__name__ == "join" and type(function.__self__) is str
    return bool(getattr(function, DECLARED, False))
