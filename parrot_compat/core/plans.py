"""A plan: calls submitted ahead of the app, and the app's real calls taking them over.

    plan = await manager.plan(session, tenant, planned, awaited=(…), nonce=…, ttl_s=30)   # Plan
    async for settled in plan.events(): …          # Settled(call, body, content, task), in order of settling
    answer = await plan.claim(call_id, claimant, nonce, choices=1)   # ClaimAnswer(call, task, reason)
    plan.leave(nonce)                              # the claimant's connection is gone
    plan.close(taken)                              # PlanReceipt(taken, claimed, cancelled, wasted_tokens)
    manager.find_plan(tenant, plan_id=…)           # or call_id=…; UnknownPlan, also for another tenant's

It knows nothing of HTTP or of what a request looks like: the body that a push shows is kept as it was given.

The invariant: a plan changes no answer. A claim holds only where prompt and sampling are equal, each planned call is
taken once, and what nobody takes ends with the plan.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .call import Call, CallId, Sampling
from .errors import Cancelled, ParrotError
from .prompt import Content
from .rendering import Rendered
from .session import Session
from .task import Task

__all__ = ["ClaimAnswer", "Plan", "PlanReceipt", "PlannedCall", "Settled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    call: Call
    body: Mapping[str, Any]
    """The client's request as it was given; nobody here looks into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A planned call that is over."""

    call: CallId
    body: Mapping[str, Any]
    content: Content | None
    """What it ran with: every reference resolved to plain text. `None` where it never ran."""
    task: Task
    """Over: `task.result`, or `task.failure`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimAnswer:
    """`task` is the planned call that stands in for the real one, or `reason` says why there is none."""

    call: CallId | None = None
    task: Task | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReceipt:
    """What became of the planned calls. Neither taken nor claimed nor cancelled: it failed, or ended unused."""

    taken: int
    """Whose push was used."""
    claimed: int
    cancelled: int
    wasted_tokens: int
    """Drawn for calls that nobody took."""


class _Entry:
    __slots__ = ("is_taken", "nonce", "planned", "task")

    def __init__(self, planned: PlannedCall, task: Task) -> None:
        self.planned = planned
        self.task = task
        self.nonce: str | None = None
        self.is_taken = False

    @property
    def is_claimed(self) -> bool:
        return self.nonce is not None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A real call as it would run by itself."""

    model: str
    rendered: Rendered
    sampling: Sampling


_UNSEEDED = -1  # stands for "any seed will do": each call without one draws its own


class Plan:
    """Made by `Manager.plan`. Belongs to one session and one tenant."""

    def __init__(
        self, id: str, session: Session, entries: Sequence[tuple[PlannedCall, Task]], on_end: Callable[[Plan], None]
    ) -> None:
        self.id = id
        self.session = session
        self.receipt: PlanReceipt | None = None
        """There once the plan has ended."""
        self._entries = {planned.call.id: _Entry(planned, task) for planned, task in entries}
        self._claims: dict[str, _Entry] = {}
        self._settled: list[Settled] = []
        self._news = asyncio.Event()
        self._is_ending = False
        self._on_end: Callable[[Plan], None] | None = on_end
        for entry in self._entries.values():
            entry.task.when_over(self._heard)

    # ---- questions -----------------------------------------------------------------------------------------

    @property
    def tenant(self) -> str:
        return self.session.tenant

    @property
    def is_over(self) -> bool:
        return self.receipt is not None

    @property
    def tasks(self) -> dict[CallId, Task]:
        """Of the planned calls, in plan order."""
        return {call: entry.task for call, entry in self._entries.items()}

    @property
    def unclaimed(self) -> int:
        return sum(not entry.is_claimed for entry in self._entries.values())

    @property
    def wasted_tokens(self) -> int:
        """Drawn so far for calls that nobody has taken."""
        unused = (entry for entry in self._entries.values() if not entry.is_claimed and not entry.is_taken)
        return sum(entry.task.drawn_tokens for entry in unused)

    async def events(self) -> AsyncIterator[Settled]:
        """Every call as it settles; a late reader gets all. Ends when all have settled, or with the plan."""
        position = 0
        while True:
            news = self._news
            while position < len(self._settled):
                position += 1
                yield self._settled[position - 1]
            if self.is_over or position == len(self._entries):
                return
            await news.wait()

    # ---- claims --------------------------------------------------------------------------------------------

    async def claim(self, call_id: str, claimant: Call, nonce: str, *, choices: int = 1) -> ClaimAnswer:
        """The app's real call asks for its planned twin. `claimant` is that call as it would run by itself (its id and
        output do not matter), `choices` its n, `nonce` names the client's run: the same one gets the same output again.

        Where the twin is not equal, or another run has it, an equal one further down the plan will do. A twin that is
        not what the app asks for is cancelled, with the planned calls that hang on it.
        Errors: those of rendering the claimant's own prompt.
        """
        entry = self._entries.get(CallId(call_id))
        if self.is_over:
            return ClaimAnswer(reason="the plan has ended")
        if entry is None:
            return ClaimAnswer(reason="the plan has no such call")
        if choices != 1:
            return self._refuse(entry, "n is not 1")
        try:
            with self.session.alive():
                asked = await self._resolved(claimant)
                await entry.task.prepared()
        except ParrotError:  # the app's own call cannot run: what was planned is not what it wanted
            self._drop(entry)
            raise
        if (earlier := self._claims.get(nonce)) is not None:  # an SDK that tries again
            reason = self._why_not(earlier, asked, nonce)
            return ClaimAnswer(reason=reason) if reason is not None else _claimed(earlier)
        reason = self._why_not(entry, asked, nonce)
        if reason is not None:
            equals = (other for other in self._entries.values() if self._why_not(other, asked, nonce) is None)
            equal = next(equals, None)
            if equal is None:
                return self._refuse(entry, reason)
            entry = equal
        entry.nonce = nonce
        self._claims[nonce] = entry
        return _claimed(entry)

    def leave(self, nonce: str) -> None:
        """The claimant is gone: its call goes on if something else needs it, else it is cancelled."""
        if (entry := self._claims.get(nonce)) is not None:
            self.session.leave(entry.task.call.id)

    # ---- the end -------------------------------------------------------------------------------------------

    def close(self, taken: Collection[str] = ()) -> PlanReceipt:
        """The run is over: `taken` are the calls whose push was used. What is left and not needed is cancelled.
        Closing again gives the same receipt."""
        if self.receipt is not None:
            return self.receipt
        for call_id in taken:
            if (entry := self._entries.get(CallId(call_id))) is not None and not entry.is_claimed:
                entry.is_taken = True
        cancelled = 0
        self._is_ending = True  # what ends from here on is not news of the plan
        for entry in reversed(self._entries.values()):  # consumers first: then nothing needs what feeds them
            if not entry.is_claimed and not entry.task.is_over and not self.session.is_needed(entry.task.call.id):
                entry.task.cancel(Cancelled(f"plan {self.id!r} has ended and nobody took call {entry.task.call.id!r}"))
                cancelled += 1
        self.receipt = PlanReceipt(
            taken=sum(entry.is_taken for entry in self._entries.values()),
            claimed=sum(entry.is_claimed for entry in self._entries.values()),
            cancelled=cancelled,
            wasted_tokens=self.wasted_tokens,
        )
        self._tell()
        on_end, self._on_end = self._on_end, None
        assert on_end is not None
        on_end(self)
        return self.receipt

    def check(self) -> None:
        assert all(self._claims[entry.nonce] is entry for entry in self._entries.values() if entry.nonce is not None)
        assert len(self._claims) == sum(entry.is_claimed for entry in self._entries.values())
        assert all(settled.task.is_over for settled in self._settled)
        assert not any(entry.is_claimed and entry.is_taken for entry in self._entries.values())

    # ---- inside --------------------------------------------------------------------------------------------

    async def _resolved(self, claimant: Call) -> _Asked:
        machinery = self.session.machinery
        model = machinery.fleet.model(claimant.model)
        rendered = await machinery.renderer.render_any(claimant.prompt.bind({}), model, self.tenant)
        return _Asked(model, rendered, claimant.sampling)

    def _why_not(self, entry: _Entry, asked: _Asked, nonce: str) -> str | None:
        """Why this planned call cannot stand in for what is asked; `None` where it can."""
        task = entry.task
        if entry.is_taken or (entry.nonce is not None and entry.nonce != nonce):
            return "another run has taken it"
        if task.failure is not None:
            return f"the planned call failed: {task.failure}"
        if task.rendered is None:
            return "the planned call still waits for its inputs"
        if task.model != asked.model:
            return f"the planned call runs on model {task.model!r}"
        if not _says_the_same(task.rendered, asked.rendered):
            return "the prompt differs from the planned one"
        if not self._draws_the_same(task, asked):
            return "the sampling parameters differ from the planned ones"
        return None

    def _draws_the_same(self, task: Task, asked: _Asked) -> bool:
        infos = self.session.machinery.fleet.infos(task.model)
        defaults = infos[0].defaults if infos else Sampling()
        limit = max((info.context_tokens for info in infos), default=0)
        room = max(1, limit - asked.rendered.prompt_tokens)
        planned, wanted = (
            sampling.resolve(defaults, room=room, seed=_UNSEEDED) for sampling in (task.call.sampling, asked.sampling)
        )
        if task.rendered is not None and task.rendered.ids is not None:  # a text engine has defaults of its own
            planned, wanted = replace(planned, asked=()), replace(wanted, asked=())
        return planned == wanted

    def _refuse(self, entry: _Entry, reason: str) -> ClaimAnswer:
        self._drop(entry)
        return ClaimAnswer(reason=reason)

    def _drop(self, entry: _Entry) -> None:
        """The app did not do what was planned: what hangs on this call would run on a text that nobody has seen."""
        cause = Cancelled(f"the app's own call differs from the planned call {entry.planned.call.id!r}")
        doomed, seen = [entry], {entry}
        while doomed:
            entry = doomed.pop()
            if entry.is_claimed:
                continue  # the app itself asked for this one
            consumers = self.session.consumers(entry.planned.call.output)
            hanging = {self._entries[call] for call in consumers if call in self._entries} - seen
            doomed += hanging
            seen |= hanging
            entry.task.cancel(cause)

    def _heard(self, task: Task) -> None:
        if self.is_over or self._is_ending:
            return
        entry = self._entries[task.call.id]
        content = None if task.rendered is None else task.rendered.content
        self._settled.append(Settled(call=task.call.id, body=entry.planned.body, content=content, task=task))
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _claimed(entry: _Entry) -> ClaimAnswer:
    return ClaimAnswer(call=entry.planned.call.id, task=entry.task)


def _says_the_same(planned: Rendered, asked: Rendered) -> bool:
    """Equal ids; where only the engine knows them, equal contents."""
    if planned.ids is not None and asked.ids is not None:
        return planned.ids == asked.ids
    return planned.content == asked.content
