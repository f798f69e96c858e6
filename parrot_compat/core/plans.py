"""Plans: those of every session, opened here, found by their tenant, and ended by time.

It knows nothing of HTTP, engines or claims.

The invariant: a plan is here until it ends (closed, with its session, or `ttl_s` after its own last sign of life: a
session that is always in use keeps none of its plans), and whoever asks finds only the plans of its own tenant.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace

from .errors import UnknownPlan, UnknownVariable
from .events import PlanEnded
from .intake import Machinery
from .kept import size_of_body, size_of_copies
from .life import Life
from .plan import Plan
from .plan_facts import PlannedCall, PlanReceipt
from .session import Session
from .twin import Twins

__all__ = ["Plans"]

_RECEIPT_S = 30.0  # an SDK that tries again does it within seconds


class Plans:
    def __init__(self, machinery: Machinery) -> None:
        self._admission = machinery.admission
        self._background = machinery.background
        self._events = machinery.fleet.events
        self._clock = machinery.fleet.clock
        self._twins = Twins(machinery.fleet, machinery.renderer)
        self._plans: dict[str, Plan] = {}
        self._by_call: dict[tuple[str, str], list[Plan]] = {}  # tenant and call id: the plans that have it
        self._ended_lately: dict[str, tuple[Session, PlanReceipt]] = {}

    async def open(
        self,
        session: Session,
        planned: Sequence[PlannedCall],
        awaited: Collection[str],
        ttl_s: float,
        width: int | None = None,
    ) -> Plan:
        """Errors: `TooManyCalls`, `SessionFull`, `UnknownVariable` (awaited, and not a call of the plan), those of
        `submit_all`."""
        tenant = session.tenant
        outputs = {item.call.id: item.call.output for item in planned}
        if unknown := set(awaited) - outputs.keys():
            raise UnknownVariable(f"awaited, but not in the plan: {', '.join(sorted(unknown))}", "await")
        size = sum(size_of_body(item.body, item.call.prompt) for item in planned if item.body)
        session.kept.let_in(size)
        self._admission.admit_plan(tenant, len(planned))
        session.kept.add(size)
        holds = ExitStack()
        try:
            tasks = await session.submit_all([item.call for item in planned], is_delivered=False, width=width)
            for task in tasks:
                holds.enter_context(task.followed())
            for call, output in outputs.items():
                if call in awaited:
                    holds.enter_context(session.expecting(output))
        except BaseException:
            holds.close()
            session.kept.add(-size)
            self._admission.release_plan(tenant, len(planned))
            raise
        # of the calls those that the session has are held; texts that it had before are in bodies once more
        pairs = tuple(zip(planned, tasks, strict=True))
        copied = sum(size_of_copies(item.call.prompt, task.call.prompt) for item, task in pairs if item.body)
        session.kept.add(copied)
        plan = Plan(
            f"graph-{secrets.token_hex(16)}",
            session,
            tuple((replace(item, call=task.call), task) for item, task in pairs),
            holds=holds,
            twins=self._twins,
            life=Life(self._clock),
        )
        self._enter(plan)
        plan.when_over(lambda plan: plan.session.kept.add(-size - copied))
        expiry = self._background.spawn(self._expire(plan, ttl_s), f"expiry of {plan.id}")
        plan.when_over(lambda plan: expiry.cancel())
        forget = session.at_close(lambda: plan.close())
        plan.when_over(lambda plan: forget())
        return plan

    def find(self, tenant: str, *, plan_id: str | None = None, call_id: str | None = None) -> Plan:
        """By its id, or the newest with such a call. Errors: `UnknownPlan`, the same whoever asks for whosever."""
        plan = None
        if plan_id is not None:
            plan = self._plans.get(plan_id)
        elif call_id is not None:
            plan = next(reversed(self._by_call.get((tenant, call_id), [])), None)
        if plan is None or plan.tenant != tenant:
            asked = plan_id if plan_id is not None else call_id
            raise UnknownPlan(f"no plan {(asked or '')[:64]!r}: it has ended, or never was")
        return plan

    def close(self, tenant: str, plan_id: str, taken: Collection[str] = ()) -> PlanReceipt:
        """The plan's run is over. Closing again gives the same receipt, for half a minute and while its session is
        open; nothing else is kept of it. Errors: `UnknownPlan`, as `find`."""
        session, receipt = self._ended_lately.get(plan_id, (None, None))
        if session is not None and receipt is not None and session.tenant == tenant and not session.is_closed:
            return receipt
        return self.find(tenant, plan_id=plan_id).close(taken)

    def check(self) -> None:
        assert not self._ended_lately.keys() & self._plans.keys()
        for plan in self._plans.values():
            assert not plan.is_over and not plan.session.is_closed
            assert all(plan in self._by_call[plan.tenant, call] for call in plan.tasks)
            plan.check()
        assert {plan for plans in self._by_call.values() for plan in plans} <= set(self._plans.values())

    # ---- inside ----------------------------------------------------------------------------------------

    def _enter(self, plan: Plan) -> None:
        self._plans[plan.id] = plan
        for call in plan.tasks:
            self._by_call.setdefault((plan.tenant, call), []).append(plan)
        plan.when_over(self._ended)

    def _ended(self, plan: Plan) -> None:
        del self._plans[plan.id]
        for call in plan.tasks:
            plans = self._by_call[plan.tenant, call]
            plans.remove(plan)
            if not plans:
                del self._by_call[plan.tenant, call]
        self._admission.release_plan(plan.tenant, len(plan.tasks))
        assert plan.receipt is not None
        self._ended_lately[plan.id] = plan.session, plan.receipt
        self._background.spawn(self._forget(plan.id), f"receipt of {plan.id}")
        self._events.emit(
            PlanEnded(
                at_s=self._clock.now(),
                session=plan.session.id,
                tenant=plan.tenant,
                plan=plan.id,
                calls=len(plan.tasks),
                taken=plan.receipt.taken,
                claimed=plan.receipt.claimed,
                cancelled=plan.receipt.cancelled,
                wasted_tokens=plan.receipt.wasted_tokens,
            )
        )

    async def _forget(self, plan_id: str) -> None:
        await self._clock.sleep(_RECEIPT_S)
        del self._ended_lately[plan_id]

    async def _expire(self, plan: Plan, ttl_s: float) -> None:
        await plan.life.outlive(ttl_s)
        plan.close()
