"""The sessions that clients know by name: their own labels, and the ids that were drawn for them.

A label is the tenant's alone: the same word of another tenant is another session. A session is opened when its label
is first used and ends when it has not been used for a while. Where a tenant has as many as it may have, the label that
was not used for longest makes room, and so it does where they keep as much as they may: a label is a hint, and costs no
request its answer. It knows nothing of requests.

The invariant: a name leads to an open session of its tenant, or to none; what is kept here of a session goes with it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from parrot_compat.core.call import CallId, VariableName
from parrot_compat.core.errors import CallerError, LimitError
from parrot_compat.core.events import Event, SessionClosed
from parrot_compat.core.manager import Manager
from parrot_compat.core.session import Session
from parrot_compat.core.task import Task
from parrot_compat.core.variable import Variable
from parrot_compat.server.limits import RequestLimits

__all__ = ["Directory", "Known"]

Made = TypeVar("Made", Task, Variable)
Id = TypeVar("Id", bound=str)

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
    call_heirs: dict[str, deque[CallId]] = field(default_factory=dict)
    """By the name that a client gave to a call: the calls that it made again under this name, in order, before one of
    them had an answer. SDKs do, and those before are cancelled, or failed."""
    variable_heirs: dict[str, deque[VariableName]] = field(default_factory=dict)

    def task(self, name: str) -> Task:
        """The call that a client means by this name. Errors: `CallerError` where there is none."""
        return _meant(self.session.task, name, self.call_heirs.get(name, ()))

    def variable(self, name: str) -> Variable:
        """The variable that a client means by this name. Errors: `UnknownVariable`."""
        return _meant(self.session.variable, name, self.variable_heirs.get(name, ()))

    def may_name_call(self, name: str) -> bool:
        """No call has this name, or the one that has it has failed."""
        try:
            return name not in self.reserved_calls and self.task(name).failure is not None
        except CallerError:
            return True

    def may_name_variable(self, name: str) -> bool:
        try:
            return name not in self.reserved_variables and self.variable(name).failure is not None
        except CallerError:
            return True

    def name_call(self, name: str, task: Task) -> None:
        """The client has made `task` under this name. It is what the name means once those before it have failed."""
        with suppress(CallerError):
            if task.call.id == name or self.task(name).result is not None:
                return
        _follow(self.session.task, self.call_heirs.setdefault(name, deque()), task.call.id)

    def name_variable(self, name: str, variable: Variable) -> None:
        with suppress(CallerError):
            held = self.variable(name)
            if variable.name == name or (held.is_settled and held.failure is None):
                return
        _follow(self.session.variable, self.variable_heirs.setdefault(name, deque()), variable.name)

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


def _meant(find: Callable[[str], Made], name: str, heirs: Iterable[str]) -> Made:
    """The first that has not failed, or the last of all. Errors: those of `find` where there is none."""
    found: Made | None = None
    for each in (name, *heirs):
        with suppress(CallerError):  # the first may have been refused after all
            found = find(each)
            if found.failure is None:
                return found
    return find(name) if found is None else found


def _follow(find: Callable[[str], Made], heirs: deque[Id], id: Id) -> None:
    """The next in line. What has failed before it will never be meant again."""
    while heirs and find(heirs[0]).failure is not None:
        heirs.popleft()
    heirs.append(id)


class Directory:
    def __init__(self, manager: Manager, limits: RequestLimits) -> None:
        self._manager = manager
        self._limits = limits
        self._known: dict[str, Known] = {}  # by drawn id
        self._labels: dict[str, dict[str, str]] = {}  # by tenant: label to drawn id, the one used last at the end
        self._of_tenant: Counter[str] = Counter()
        manager.events.subscribe(self._hear)

    async def open(self, tenant: str, *, title: str | None = None, ttl_s: float | None = None) -> Known:
        """A new session, known by its drawn id. Errors: `LimitError`, `QueueFull`."""
        await self._make_room(tenant)
        return self._open(tenant, None, title, ttl_s)

    async def join(self, tenant: str, name: str) -> Known:
        """The session of this name, opened if there is none. Errors: as `open`."""
        if self._find(tenant, name) is None:
            await self._make_room(tenant)
        known = self._find(tenant, name)  # another request may have been here
        return known if known is not None else self._open(tenant, name, name, None)

    async def has_room(self, tenant: str, name: str) -> bool:
        """The session of this name may go on, or be opened, as far as memory goes: what the tenant's sessions keep is
        within the limit, once labelled ones that nothing uses now have ended if it takes that. None ends in vain."""
        if self._manager.has_room(tenant):
            return True
        asked = self._find(tenant, name)
        idle = [session for session in self._idle(tenant) if asked is None or session is not asked.session]
        if self._manager.has_room(tenant, without=sum(session.kept.size for session in idle)):
            for session in idle:
                if not self._manager.has_room(tenant) and not session.life.is_held:  # it may have come into use
                    await session.close()
        return self._manager.has_room(tenant)

    def get(self, tenant: str, name: str) -> Known:
        """Errors: `UnknownSession`, also for another tenant's."""
        known = self._find(tenant, name)
        if known is None:
            return self.of(self._manager.session(name, tenant))
        known.session.life.sign()
        return known

    def of(self, session: Session) -> Known:
        """What is known of a session, however it was opened. Whoever asks uses it."""
        known = self._known.get(session.id)
        if known is None:
            return Known(session, session.id)
        self._use(known)
        return known

    def __len__(self) -> int:
        return len(self._known)

    def check(self) -> None:
        assert all(not known.session.is_closed for known in self._known.values())
        assert {id for labels in self._labels.values() for id in labels.values()} <= self._known.keys()
        assert all(self._labels.values())
        assert self._of_tenant == Counter(known.session.tenant for known in self._known.values())

    def _find(self, tenant: str, name: str) -> Known | None:
        """By its label or its drawn id. Whoever asks uses it."""
        known = self._known.get(self._labels.get(tenant, {}).get(name, name))
        if known is None or known.session.tenant != tenant:
            return None
        self._use(known)
        return known

    def _use(self, known: Known) -> None:
        labels = self._labels.get(known.session.tenant, {})
        if known.name in labels:
            labels[known.name] = labels.pop(known.name)

    async def _make_room(self, tenant: str) -> None:
        """End the labelled session that was not used for longest and that nothing uses now, if it takes that."""
        if self._of_tenant[tenant] < self._limits.sessions:
            return
        idle = next(self._idle(tenant), None)
        if idle is not None:
            await idle.close()

    def _idle(self, tenant: str) -> Iterator[Session]:
        """Labelled ones that nothing uses now, the one that was not used for longest first."""
        labelled = (self._known[id].session for id in self._labels.get(tenant, {}).values())
        return (session for session in labelled if not session.life.is_held)

    def _open(self, tenant: str, label: str | None, title: str | None, ttl_s: float | None) -> Known:
        most = self._limits.sessions
        if self._of_tenant[tenant] >= most:
            raise LimitError(f"{most} sessions are open for this tenant, which is the limit; delete some, or wait")
        ttl_s = self._limits.session_ttl_s if ttl_s is None else ttl_s
        session = self._manager.open_session(tenant=tenant, name=title, ttl_s=ttl_s)
        known = self._known[session.id] = Known(session, label or session.id)
        self._of_tenant[tenant] += 1
        if label is not None:
            self._labels.setdefault(tenant, {})[label] = session.id
        return known

    def _hear(self, event: Event) -> None:
        if not isinstance(event, SessionClosed):
            return
        known = self._known.pop(event.session, None)
        if known is not None:
            labels = self._labels.get(event.tenant, {})
            labels.pop(known.name, None)
            if not labels:
                self._labels.pop(event.tenant, None)
            self._of_tenant[event.tenant] -= 1
            if not self._of_tenant[event.tenant]:
                del self._of_tenant[event.tenant]
