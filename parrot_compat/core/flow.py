"""A flow: whom a call is worked for, as fairness counts it.

A plain value. The invariant: all calls of a session have one flow.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Flow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The tenant, then the app. `order` numbers the sessions as they were opened."""

    tenant: str
    session: str
    order: int
    began_s: float | None = 0.0
    """`None`: how long its app has been here gives a call no place before others."""
    takes_turns: bool = True
    """Inside an engine, with the other apps of its tenant."""

    @property
    def name(self) -> str:
        """By which engines know it."""
        return f"{self.tenant}/{self.session}" if self.takes_turns else self.tenant
