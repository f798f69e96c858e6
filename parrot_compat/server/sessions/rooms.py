"""Rooms: where a request's calls are made. A session of its own, one it names, or the one whose plan it claims from.

It knows nothing of messages or of the shape of answers.

The invariant: a call that only its request wants does not outlive it; in a session that was joined, what else is
there goes on.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from parrot_compat.core.call import Call, CallId, Reading, Sampling, Usage, VariableName
from parrot_compat.core.errors import UnknownPlan
from parrot_compat.core.manager import Manager
from parrot_compat.core.plan import Plan
from parrot_compat.core.prompt import Prompt
from parrot_compat.core.session import Session
from parrot_compat.core.task import Task

from .asking import Ask
from .directory import Directory, Known
from .references import References

__all__ = ["Begun", "Room", "cached_tokens", "entered"]

_PLAIN = Reading()


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The calls that answer a request, and what its receipt says of them."""

    tasks: tuple[Task, ...]
    choices: int
    """To a prompt: so many tasks follow each other that answer the same one."""
    ask: Ask
    session: str
    """As the client calls it."""
    session_id: str
    """As it was drawn: a label may hold what a path cannot."""
    is_claimed: bool | None = None
    """`None`: no claim was made."""
    reason: str | None = None

    def receipt(self, usages: Sequence[Usage]) -> dict[str, Any]:
        """Once all of it is over; `usages` are those of the tasks, in order."""
        first = self.tasks[0]
        data: dict[str, Any] = {"session": self.session, "session_id": self.session_id, "call": first.call.id}
        if self.is_claimed is not None:
            data["claimed"] = self.is_claimed
            data |= {} if self.reason is None else {"reason": self.reason}
        queued_s = max(task.queue_s or 0.0 for task in self.tasks)
        return data | {
            "hints": self.ask.hints.words(),
            "cached_tokens": cached_tokens(usages, self.choices),
            "queue_ms": round(queued_s * 1000, 3),
            "objective": first.objective.kind,
        }

    def object(self, usages: Sequence[Usage]) -> dict[str, Any]:
        """The receipt as a part of the answer, for those who have sent an object."""
        return {"parrot": self.receipt(usages)} if self.ask.has_object else {}

    def headers(self, usages: Sequence[Usage] | None = None) -> dict[str, str]:
        """The receipt as headers; those of a stream leave before there are `usages`."""
        headers = self.ask.hints.headers()
        if self.ask.has_object:
            return headers
        receipt = self.receipt(usages or ())
        names = ["session", "session_id", "call", "objective"]
        names += ["cached_tokens", "queue_ms"] if usages is not None else []
        return headers | {f"x-parrot-{name.replace('_', '-')}": _printable(str(receipt[name])) for name in names}


class Room:
    def __init__(
        self, known: Known, ask: Ask, *, plan: Plan | None, reason: str | None, is_apart: bool = False
    ) -> None:
        """`is_apart`: it is not the session that was asked for."""
        self.session: Session = known.session
        self.resolve = References(known, is_apart=is_apart)
        self._known = known
        self._ask = ask
        self._plan = plan
        self._reason = reason

    @asynccontextmanager
    async def begun(
        self,
        id: str,
        model: str,
        wanted: Sequence[tuple[Prompt, Sampling]],
        reading: Reading = _PLAIN,
        *,
        choices: int | None = None,
    ) -> AsyncIterator[Begun]:
        """One task per choice, or the planned one that stands in for it. `choices` of what is wanted follow each other
        to a prompt; `None`: all of it is of one prompt. Errors: those of `Session.submit_all`."""
        calls = self._calls(id, model, wanted, reading)
        claim, reason = self._ask.said.claim, self._reason
        claimed: Task | None = None
        tasks: tuple[Task, ...] = ()
        # one run of the client may claim several calls: each claim has a nonce of its own
        nonce = f"{self._ask.said.nonce or uuid.uuid4().hex}/{claim}"
        with self._known.reserving([call.id for call in calls], [call.output for call in calls]):
            if claim is not None and self._plan is not None and calls[0].prompt.inputs():
                reason = "a request with references claims nothing"
            elif claim is not None and self._plan is not None:
                answer = await self._plan.claim(claim, calls[0], nonce, choices=len(calls))
                claimed, reason = answer.task, answer.reason
            if claimed is None:
                tasks = await self.session.submit_all(calls)
                self._name(tasks)
        if claimed is not None and (plan := self._plan) is not None:
            with (
                plan.life.held(),
                claimed.followed(),
                self._known.attached(nonce, lambda: plan.leave(nonce)),
            ):
                yield self._begun((claimed,), choices=1, is_claimed=True)
            return
        self._known.note(tasks[0].call.id, **self._ask.notes())
        try:
            is_claimed = None if claim is None else False
            with ExitStack() as following:
                for task in tasks:
                    following.enter_context(task.followed())
                yield self._begun(tasks, choices=choices or len(tasks), is_claimed=is_claimed, reason=reason)
        finally:
            for task in tasks:
                self.session.leave(task.call.id)

    def _begun(
        self, tasks: tuple[Task, ...], *, choices: int, is_claimed: bool | None, reason: str | None = None
    ) -> Begun:
        return Begun(
            tasks=tasks,
            choices=choices,
            ask=self._ask,
            session=self._known.name,
            session_id=self.session.id,
            is_claimed=is_claimed,
            reason=reason,
        )

    def _calls(self, id: str, model: str, wanted: Sequence[tuple[Prompt, Sampling]], reading: Reading) -> list[Call]:
        said = self._ask.said
        first = self._free_call(said.call, len(wanted)) or id
        output = self._free_variable(said.output.name) if said.output is not None else None
        return [
            Call(
                id=_call_id(first, index),
                prompt=prompt,
                output=VariableName(f"{id}-{index}" if output is None or index else output),
                sampling=sampling,
                model=model,
                function=said.function,
                objective=self._ask.objective,
                stage=None if said.stage is None else said.stage.stage(),
                reading=reading,
            )
            for index, (prompt, sampling) in enumerate(wanted)
        ]

    def _free_call(self, name: str | None, choices: int) -> str | None:
        """The name that the client gave, as an id, unless a call has it already: an SDK may have sent the request
        twice. It is the client's word for this call where the one that has it has failed."""
        if name is None:
            return None
        names = [_call_id(name, index) for index in range(choices)]
        is_applied = all(self._known.may_name_call(each) for each in names)
        (self._ask.hints.applied if is_applied else self._ask.hints.ignored)("call")
        return None if any(self._known.has_call(each) for each in names) else name

    def _free_variable(self, name: str) -> str | None:
        is_applied = self._known.may_name_variable(name)
        (self._ask.hints.applied if is_applied else self._ask.hints.ignored)("output")
        return None if self._known.has_variable(name) else name

    def _name(self, tasks: Sequence[Task]) -> None:
        said = self._ask.said
        for index, task in enumerate(tasks if said.call is not None else ()):
            self._known.name_call(_call_id(str(said.call), index), task)
        if said.output is not None:
            self._known.name_variable(said.output.name, tasks[0].output)


@asynccontextmanager
async def entered(manager: Manager, directory: Directory, ask: Ask) -> AsyncIterator[Room]:
    """The room of a request, for as long as it is open: that is life for its session. Errors: `LimitError`.

    Where the tenant's sessions that are in use keep as much as they may, a session that is asked for is not joined: a
    hint fails no call."""
    plan, reason = _plan_of(manager, ask)
    is_apart = plan is None and ask.session is not None and not await directory.has_room(ask.tenant, ask.session)
    if plan is not None:
        known = directory.of(plan.session)
    elif ask.session is not None and not is_apart:
        known = await directory.join(ask.tenant, ask.session)
    else:
        session = manager.open_session(tenant=ask.tenant, is_brief=True)
        if is_apart:
            ask.hints.ignored("session")
        try:
            yield Room(Known(session, session.id), ask, plan=None, reason=reason, is_apart=is_apart)
        finally:
            await session.close()
        return
    with known.session.life.held():
        yield Room(known, ask, plan=plan, reason=reason)


def cached_tokens(usages: Sequence[Usage], choices: int = 1) -> int:
    """Of all prompts. `usages` come `choices` to a prompt: what its first reader computed was not cached."""
    by_prompt = [usages[start : start + choices] for start in range(0, len(usages), choices)]
    return sum(min(usage.cached_tokens for usage in group) for group in by_prompt)


def _plan_of(manager: Manager, ask: Ask) -> tuple[Plan | None, str | None]:
    """The plan that is claimed from, or why there is none."""
    if ask.said.claim is None:
        return None, None
    try:
        if ask.said.graph is not None:
            plan = manager.find_plan(ask.tenant, plan_id=ask.said.graph)
        else:
            plan = manager.find_plan(ask.tenant, call_id=ask.said.claim)
    except UnknownPlan as error:
        return None, error.message
    return plan, None


def _call_id(first: str, index: int) -> CallId:
    return CallId(first if index == 0 else f"{first}-{index}")


def _printable(text: str) -> str:
    """Labels come from clients: what a header cannot hold is replaced."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)
