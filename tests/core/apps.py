"""Calls of one app and what is deduced of them, for the tests of objectives and of slack."""

from __future__ import annotations

from dataclasses import replace

from parrot_compat.core.call import Call, CallId, ObjectiveKind, StageLabel
from parrot_compat.core.objective import BASE_SLACK_S, Deduction

from .conftest import make_call

INF = BASE_SLACK_S["background"]


def call(id: str, *reads: str, objective: ObjectiveKind | None = None, stage: StageLabel | None = None) -> Call:
    """A call that reads the outputs of other calls (by their ids) or variables from outside (`$name`)."""
    inputs = [name[1:] if name.startswith("$") else f"out-{name}" for name in reads]
    return replace(make_call(id, "t", *inputs), objective=objective, stage=stage)


class App:
    """Calls of one app, accepted in order, and what is deduced of them."""

    def __init__(self, *calls: Call, is_delivered: bool = False, **seconds: float) -> None:
        self.deduction = Deduction()
        self.seconds = seconds
        self.add(*calls, is_delivered=is_delivered)

    def add(self, *calls: Call, is_delivered: bool = False) -> None:
        expected = [self.seconds.get(call.id, 1.0) for call in calls]
        self.deduction.add(calls, seconds=expected, is_delivered=is_delivered)
        self.deduction.check()

    def awaits(self, *calls: str, kind: ObjectiveKind | None = None) -> App:
        for id in calls:
            self.deduction.begin_await(f"out-{id}", kind)
        self.deduction.check()
        return self

    def over(self, *calls: str) -> None:
        for id in calls:
            self.deduction.remove(CallId(id))
            self.deduction.check()

    def kinds(self, ids: str) -> str:
        """One letter per call: l, t or b."""
        return "".join(self.deduction.kind(CallId(id))[0] for id in ids.split())

    def groups(self, ids: str) -> list[str | None]:
        return [self.deduction.group(CallId(id)) for id in ids.split()]

    def are_together(self, ids: str) -> bool:
        groups = self.groups(ids)
        return groups[0] is not None and len(set(groups)) == 1

    def slack_s(self, id: str) -> float:
        return self.deduction.slack_s(CallId(id))
