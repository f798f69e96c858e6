"""One plan: calls submitted ahead of the app, and the app's real calls taking them over.

    plan = await manager.plan(session, planned, awaited=call_ids, ttl_s=30)
    async for settled in plan.events(): …          # Settled(call, body, content, task), in order of settling
    answer = await plan.claim(call_id, claimant, nonce, choices=1)   # ClaimAnswer(call, task, reason)
    plan.leave(nonce)                              # the claimant's connection is gone
    plan.close(taken)                              # PlanReceipt(taken, claimed, cancelled, wasted_tokens)
    manager.find_plan(tenant, plan_id=…)           # or call_id=…; UnknownPlan, also for another tenant's
    manager.close_plan(tenant, plan_id, taken)     # by its id; once more gives the same receipt

It knows nothing of HTTP or of what a request looks like: the body that a push shows is kept as it was given.

The invariant: a plan changes no answer. A claim holds only where prompt and sampling are equal, each planned call is
taken once, and what nobody takes ends with the plan.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import ExitStack

from .call import Call, CallId
from .errors import Cancelled, ParrotError
from .life import Life
from .news import News
from .plan_facts import ClaimAnswer, Entry, PlannedCall, PlanReceipt, Settled
from .session import Session
from .task import Task
from .twin import Lookalikes, RealCall, Twins

__all__ = ["Plan"]


class Plan:
    """Made by `Manager.plan`. Belongs to one session and one tenant."""

    def __init__(
        self,
        id: str,
        session: Session,
        planned: Sequence[tuple[PlannedCall, Task]],
        *,
        holds: ExitStack,
        twins: Twins,
        life: Life,
    ) -> None:
        """`holds` is what it holds until it ends: the awaits of its outputs, and what its calls ran with."""
        self.id = id
        self.session = session
        self.tenant = session.tenant
        self.tasks = {item.call.id: task for item, task in planned}
        """Of the planned calls, in plan order."""
        self.receipt: PlanReceipt | None = None
        """There once the plan has ended."""
        self.life = life
        """Held while its pushes are read, a claim's answer is taken, or a call of it can run or runs."""
        self._entries = {item.call.id: Entry(item, task) for item, task in planned}
        self._claims: dict[str, Entry] = {}
        self._settled: list[Settled] = []
        self._news = News()
        self._holds = holds
        self._twins = twins
        self._lookalikes = Lookalikes(self.tasks.values())
        self._is_ending = False
        self._when_over: list[Callable[[Plan], object]] = []
        for task in self.tasks.values():
            task.keep_alive(life)
            task.when_over(self._heard)

    # ---- questions -----------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return self.receipt is not None

    @property
    def wasted_tokens(self) -> int:
        """Drawn so far for calls that nobody has taken."""
        unused = (entry for entry in self._entries.values() if not entry.is_claimed and not entry.is_taken)
        return sum(entry.task.drawn_tokens for entry in unused)

    async def events(self) -> AsyncIterator[Settled]:
        """Every call as it settles; a late reader gets all. Ends when all have settled, or with the plan."""
        position = 0
        while True:
            while position < len(self._settled):
                position += 1
                yield self._settled[position - 1]
            if self.is_over or position == len(self._entries):
                return
            await self._news.heard()

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
            content = self.session.content(claimant)
            if content is None:
                return self._refuse(entry, "the claimant itself waits for its inputs")
            with self.life.held(), self.session.life.held():
                real = await self._twins.real_call(claimant, content, self.tenant)
                await entry.task.prepared()
        except ParrotError:  # the app's own call cannot run: what was planned is not what it wanted
            if not self.is_over:
                self._drop(entry)
            raise
        if self.is_over:  # meanwhile
            return ClaimAnswer(reason="the plan has ended")
        if (earlier := self._claims.get(nonce)) is not None:  # an SDK that tries again
            reason = self._why_not(earlier, real, nonce)
            if reason is not None:
                return ClaimAnswer(reason=reason)
            earlier.is_left = False
            return self._claimed(earlier)
        reason = self._why_not(entry, real, nonce)
        if reason is not None:
            alike = (self._entries[task.call.id] for task in self._lookalikes.of(real.rendered))
            equal = next((other for other in alike if self._why_not(other, real, nonce) is None), None)
            if equal is None:
                return self._refuse(entry, reason)
            entry = equal
        entry.nonce = nonce
        self._claims[nonce] = entry
        return self._claimed(entry)

    def leave(self, nonce: str) -> None:
        """The claimant is gone: its call goes on if something else needs it, else it is cancelled."""
        if (entry := self._claims.get(nonce)) is not None:
            entry.is_left = True
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
        self._is_ending = True  # what ends from here on is not news of the plan
        self._holds.close()
        cancelled = self._cancel_unused()
        self.receipt = PlanReceipt(
            taken=sum(entry.is_taken for entry in self._entries.values()),
            claimed=sum(entry.is_claimed for entry in self._entries.values()),
            cancelled=cancelled,
            wasted_tokens=self.wasted_tokens,
        )
        self._news.tell()
        listeners, self._when_over = self._when_over, []
        for listener in listeners:
            listener(self)
        return self.receipt

    def when_over(self, listener: Callable[[Plan], object]) -> None:
        """`listener` is called when the plan ends, at once if it has."""
        if self.is_over:
            listener(self)
        else:
            self._when_over.append(listener)

    def check(self) -> None:
        assert all(self._claims[entry.nonce] is entry for entry in self._entries.values() if entry.nonce is not None)
        assert len(self._claims) == sum(entry.is_claimed for entry in self._entries.values())
        assert all(settled.task.is_over for settled in self._settled)
        assert not any(entry.is_claimed and entry.is_taken for entry in self._entries.values())

    # ---- inside --------------------------------------------------------------------------------------------

    def _claimed(self, entry: Entry) -> ClaimAnswer:
        self.session.deliver(entry.task.call.id, is_delivered=True)
        return ClaimAnswer(call=entry.planned.call.id, task=entry.task)

    def _why_not(self, entry: Entry, real: RealCall, nonce: str) -> str | None:
        """Why this planned call cannot stand in for the real one; `None` where it can."""
        task = entry.task
        if entry.is_taken or (entry.nonce is not None and entry.nonce != nonce):
            return "another run has taken it"
        if task.failure is not None:
            return f"the planned call failed: {task.failure}"
        if task.rendered is None:
            return "the planned call still waits for its inputs"
        return self._twins.difference(task, real)

    def _refuse(self, entry: Entry, reason: str) -> ClaimAnswer:
        self._drop(entry)
        return ClaimAnswer(reason=reason)

    def _drop(self, entry: Entry) -> None:
        """The app did not do what was planned: what hangs on this call would run on a text that nobody has seen."""
        cause = Cancelled(f"the app's own call differs from the planned call {entry.planned.call.id!r}")
        if entry.is_claimed:
            return  # the app itself has asked for this one, and for what hangs on it
        doomed, found = {entry: None}, [entry]
        while found:
            for call in self.session.consumers(found.pop().planned.call.output):
                hanging = self._entries.get(call)
                if hanging is not None and hanging not in doomed and not hanging.is_claimed:
                    doomed[hanging] = None
                    found.append(hanging)
        spared = self._read_elsewhere(doomed)
        self._keep_wanted(doomed)
        for entry in doomed:
            if entry not in spared:
                entry.task.cancel(cause)

    def _keep_wanted(self, doomed: Collection[Entry]) -> None:
        """What feeds a call that goes is read by nobody then, but the app waits for its push: a deviation costs its own
        branch its urgency, and no other. Once: a wide stage may be refused call by call."""
        for entry in doomed:
            if entry.is_dropped:
                continue
            entry.is_dropped = True
            for producer in map(self.session.producer, entry.planned.call.prompt.inputs()):
                feeding = None if producer is None else self._entries.get(producer)
                if feeding is not None and feeding not in doomed and not feeding.is_claimed:
                    self.session.deliver(feeding.planned.call.id, is_delivered=True)

    def _read_elsewhere(self, entries: Collection[Entry]) -> set[Entry]:
        """Those that calls outside of the plan wait for, and what these wait for themselves."""
        tasks, read = self.session.task, set[Entry]()
        left = [
            entry
            for entry in entries
            for call in self.session.consumers(entry.planned.call.output)
            if call not in self._entries and not tasks(call).is_over
        ]
        while left:
            entry = left.pop()
            if entry not in read:
                read.add(entry)
                producers = map(self.session.producer, entry.planned.call.prompt.inputs())
                left += (self._entries[call] for call in producers if call in self._entries)
        return read

    def _cancel_unused(self) -> int:
        """Cancel what nobody took and nothing needs; where a consumer goes, what fed it may go too."""
        cause = Cancelled(f"plan {self.id!r} has ended and nobody took this call")
        cancelled, left = 0, list(self._entries.values())
        while left:
            entry = left.pop()
            is_read = entry.is_claimed and not entry.is_left
            if is_read or entry.task.is_over or self.session.is_needed(entry.planned.call.id):
                continue
            entry.task.cancel(cause)
            cancelled += 1
            producers = map(self.session.producer, entry.planned.call.prompt.inputs())
            left += (self._entries[call] for call in producers if call in self._entries)
        return cancelled

    def _heard(self, task: Task) -> None:
        if self.is_over or self._is_ending:
            return
        self.life.sign()
        entry = self._entries[task.call.id]
        content = None if task.rendered is None else task.rendered.content
        self._settled.append(Settled(call=task.call.id, body=entry.planned.body, content=content, task=task))
        self._news.tell()
