"""Where planning is on: for the process, for a block of code, for a chain.

It knows an environment variable, a context variable and a config's metadata, and nothing of plans. The
innermost word counts as a veto: planning happens only where nothing says no.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["METADATA", "is_on", "is_switched_off", "planning"]

VARIABLE = "PARROT_PLANNING"
METADATA = "parrot_planning"
OFF = frozenset({"0", "false", "no", "off"})

_allowed: ContextVar[bool] = ContextVar("parrot_planning", default=True)


@contextmanager
def planning(on: bool = True) -> Iterator[None]:
    """Plan, or do not plan, the runs that begin in this block."""
    token = _allowed.set(on)
    try:
        yield
    finally:
        _allowed.reset(token)


def is_on(*, compiled: bool = False) -> bool:
    """Runs that begin here may be planned. PARROT_PLANNING is `on` (unset), `compiled` (only chains that went
    through `compile`), or `off`."""
    word = os.environ.get(VARIABLE, "on").strip().lower()
    if word in OFF or not _allowed.get():
        return False
    return compiled or word != "compiled"


def is_switched_off(metadata: Mapping[str, Any] | None) -> bool:
    """`chain.with_config(metadata={"parrot_planning": False})`."""
    return bool(metadata) and (metadata or {}).get(METADATA, True) in (False, *OFF)
