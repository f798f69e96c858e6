"""Where planning is on: for the process, and for a block of code.

It knows an environment variable and a context variable, and nothing of plans. Each word counts as a veto: planning
happens only where nothing says no.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["OFF", "is_on", "planning"]

VARIABLE = "PARROT_PLANNING"
OFF = frozenset({"0", "false", "no", "off"})

_allowed: ContextVar[bool] = ContextVar("parrot_planning", default=True)


@contextmanager
def planning(on: bool = True) -> Iterator[None]:
    """Plan, or do not plan, the runs that begin in this block."""
    outer = _allowed.get()
    _allowed.set(on)
    try:
        yield
    finally:
        # Not by its token: web frameworks take each step of a generator in a context of its own.
        if _allowed.get() == on:
            _allowed.set(outer)


def is_on(*, compiled: bool = False) -> bool:
    """Runs that begin here may be planned. PARROT_PLANNING is `on` (unset), `compiled` (only chains that went
    through `compile`), or `off`."""
    word = os.environ.get(VARIABLE, "on").strip().lower()
    if word in OFF or not _allowed.get():
        return False
    return compiled or word != "compiled"
