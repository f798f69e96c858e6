"""The sessions that clients know by name: their own labels, and the ids that were drawn for them.

A label is the tenant's alone: the same word of another tenant is another session. A session is opened when its label
is first used and ends when it has not been used for a while. It knows nothing of requests.

The invariant: a name leads to an open session of its tenant, or to none; what is kept here of a session goes with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from parrot_compat.core.call import CallId
from parrot_compat.core.errors import CallerError, LimitError
from parrot_compat.core.events import Event, SessionClosed
from parrot_compat.core.manager import Manager
from parrot_compat.core.session import Session
from parrot_compat.server.limits import RequestLimits

__all__ = ["Directory", "Known"]

_NOTE_BYTES = 400  # of a span as it is kept


@dataclass(frozen=True, slots=True)
class Known:
    """A session and what clients know of it."""

    session: Session
    name: str
    """What the client calls it."""
    notes: dict[CallId, dict[str, Any]] = field(default_factory=dict)
    """What apps said of their calls and only people read: spans, stages."""
    claimants: Counter[str] = field(default_factory=Counter)
    """Open connections, by the claim whose answer they take."""
    reserved_calls: set[str] = field(default_factory=set)
    """Names that requests on their way to the session will give to calls."""
    reserved_variables: set[str] = field(default_factory=set)

    def has_call(self, call: str) -> bool:
        try:
            self.session.task(call)
        except CallerError:
            return call in self.reserved_calls
        return True

    def has_variable(self, name: str) -> bool:
        try:
            self.session.variable(name)
        except CallerError:
            return name in self.reserved_variables
        return True

    @contextmanager
    def reserving(self, calls: Collection[str], variables: Collection[str]) -> Iterator[None]:
        """Another request does not get them meanwhile. They are free, or held by a request that shares none of them."""
        my_calls, my_variables = set(calls) - self.reserved_calls, set(variables) - self.reserved_variables
        self.reserved_calls.update(my_calls)
        self.reserved_variables.update(my_variables)
        try:
            yield
        finally:
            self.reserved_calls.difference_update(my_calls)
            self.reserved_variables.difference_update(my_variables)

    def note(self, call: str, **said: Any) -> None:
        if said:
            self.notes.setdefault(CallId(call), {}).update(said)
            self.session.kept.add(_NOTE_BYTES * (1 + len(said.get("spans", ()))))

    @contextmanager
    def attached(self, claim: str, leave: Callable[[], None]) -> Iterator[None]:
        """An SDK that tries again may be there before its first connection is known to be gone: the last one leaves."""
        self.claimants[claim] += 1
        try:
            yield
        finally:
            self.claimants[claim] -= 1
            if not self.claimants[claim]:
                del self.claimants[claim]
                if not self.session.is_closed:
                    leave()


class Directory:
    def __init__(self, manager: Manager, limits: RequestLimits) -> None:
        self._manager = manager
        self._limits = limits
        self._known: dict[str, Known] = {}  # by drawn id
        self._labels: dict[tuple[str, str], str] = {}  # (tenant, label): drawn id
        self._of_tenant: Counter[str] = Counter()
        manager.events.subscribe(self._hear)

    def open(self, tenant: str, *, title: str | None = None, ttl_s: float | None = None) -> Known:
        """A new session, known by its drawn id. Errors: `LimitError`, `QueueFull`."""
        return self._open(tenant, None, title, ttl_s)

    def join(self, tenant: str, name: str) -> Known:
        """The session of this name, opened if there is none. Errors: as `open`."""
        known = self._find(tenant, name)
        return known if known is not None else self._open(tenant, name, name, None)

    def get(self, tenant: str, name: str) -> Known:
        """Errors: `UnknownSession`, also for another tenant's."""
        known = self._find(tenant, name)
        if known is None:
            return self.of(self._manager.session(name, tenant))
        known.session.life.sign()
        return known

    def of(self, session: Session) -> Known:
        """What is known of a session, however it was opened."""
        known = self._known.get(session.id)
        return known if known is not None else Known(session, session.id)

    def __len__(self) -> int:
        return len(self._known)

    def check(self) -> None:
        assert all(not known.session.is_closed for known in self._known.values())
        assert set(self._labels.values()) <= self._known.keys()
        assert self._of_tenant == Counter(known.session.tenant for known in self._known.values())

    def _find(self, tenant: str, name: str) -> Known | None:
        known = self._known.get(self._labels.get((tenant, name), name))
        return known if known is not None and known.session.tenant == tenant else None

    def _open(self, tenant: str, label: str | None, title: str | None, ttl_s: float | None) -> Known:
        most = self._limits.sessions
        if self._of_tenant[tenant] >= most:
            raise LimitError(f"{most} sessions are open for this tenant, which is the limit; delete some, or wait")
        ttl_s = self._limits.session_ttl_s if ttl_s is None else ttl_s
        session = self._manager.open_session(tenant=tenant, name=title, ttl_s=ttl_s)
        known = self._known[session.id] = Known(session, label or session.id)
        self._of_tenant[tenant] += 1
        if label is not None:
            self._labels[tenant, label] = session.id
        return known

    def _hear(self, event: Event) -> None:
        if not isinstance(event, SessionClosed):
            return
        known = self._known.pop(event.session, None)
        if known is not None:
            self._labels.pop((event.tenant, known.name), None)
            self._of_tenant[event.tenant] -= 1
            if not self._of_tenant[event.tenant]:
                del self._of_tenant[event.tenant]
