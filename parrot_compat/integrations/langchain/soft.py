"""Callbacks that cost an app nothing when they fail.

It knows functions and nothing of LangChain. The invariant: what is raised in here is logged, and raised no further.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec

__all__ = ["softly"]

log = logging.getLogger(__name__)
P = ParamSpec("P")


def softly(method: Callable[P, None]) -> Callable[P, None]:
    """A failure in here costs the plan and nothing else. It is told once per place."""
    told = False

    @functools.wraps(method)
    def tried(*args: P.args, **kwargs: P.kwargs) -> None:
        nonlocal told
        try:
            method(*args, **kwargs)
        except Exception:
            if not told:
                told = True
                log.debug("the planner failed in %s; the app goes on without", method.__name__, exc_info=True)

    return tried
