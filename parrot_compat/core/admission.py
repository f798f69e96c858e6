"""Admission: how many calls may be open or planned, for a tenant and in the whole server.

It knows nothing of what the calls do.

The invariant: the open calls counted are exactly those admitted and not yet released.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from .errors import CallerError, QueueFull, TooManyCalls

__all__ = ["Admission", "Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    open_calls: int = 200_000
    """Accepted and not over, in the whole server: beyond, `QueueFull`. A waiting call takes a few kilobytes."""
    open_calls_per_tenant: int | None = None
    """Beyond, `TooManyCalls`. `None`: only the server's limit holds."""
    planned_calls_per_tenant: int = 10_000
    """In plans that have not ended, whether they have run or not: beyond, `TooManyCalls`."""
    name_chars: int = 512
    """Of a tenant, session, call or variable: longer ones are a mistake or an attack."""


class Admission:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: Counter[str] = Counter()
        self._planned: Counter[str] = Counter()
        self._total = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def open_calls(self) -> int:
        return self._total

    def allowance(self, tenant: str) -> tuple[int, int]:
        """How many calls a tenant may have open, and how many more; what others have open is not told."""
        most = self.limits.open_calls_per_tenant or self.limits.open_calls
        return most, max(0, most - self._open[tenant])

    def admit(self, tenant: str, calls: int) -> None:
        """Errors: `QueueFull`, `TooManyCalls`; then nothing is counted."""
        if self._total + calls > self.limits.open_calls:
            limit = self.limits.open_calls
            raise QueueFull(f"{calls} more calls would make {self._total + calls} open here; the limit is {limit}")
        of_tenant, most = self._open[tenant] + calls, self.limits.open_calls_per_tenant
        if most is not None and of_tenant > most:
            raise TooManyCalls(f"{calls} more calls would make {of_tenant} open for this tenant; the limit is {most}")
        self._open[tenant] = of_tenant
        self._total += calls
        if self._total:
            self._idle.clear()

    def admit_plan(self, tenant: str, calls: int) -> None:
        """Errors: `TooManyCalls`; then nothing is counted."""
        planned, most = self._planned[tenant] + calls, self.limits.planned_calls_per_tenant
        if planned > most:
            raise TooManyCalls(f"{calls} more calls would make {planned} planned for this tenant; the limit is {most}")
        self._planned[tenant] = planned

    def release_plan(self, tenant: str, calls: int) -> None:
        self._planned[tenant] -= calls
        if not self._planned[tenant]:
            del self._planned[tenant]

    def check_name(self, kind: str, name: str, *, least: int = 1) -> None:
        """Names are kept and logged. Any characters will do. Errors: `CallerError`."""
        most = self.limits.name_chars
        if not least <= len(name) <= most:
            raise CallerError(f"the name of a {kind} has {least} to {most} characters, not {len(name)}: {name[:40]!r}")

    def release(self, tenant: str, calls: int = 1) -> None:
        self._total -= calls
        self._open[tenant] -= calls
        if not self._open[tenant]:
            del self._open[tenant]  # tenants come and go; what is kept of them must not add up
        if not self._total:
            self._idle.set()

    async def idle(self) -> None:
        """Returns when no call is open."""
        await self._idle.wait()

    def check(self) -> None:
        assert self._total == self._open.total() >= 0
        assert all(calls > 0 for counts in (self._open, self._planned) for calls in counts.values())
        assert self._idle.is_set() == (self._total == 0)
