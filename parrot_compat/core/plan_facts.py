"""What a plan is made of, and what it tells: planned calls, what became of each, claims and their answers.

It decides nothing; `plan` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .call import Call, CallId
from .prompt import Content
from .task import Task

__all__ = ["ClaimAnswer", "Entry", "PlanReceipt", "PlannedCall", "Settled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    call: Call
    body: Mapping[str, Any]
    """The client's request as it was given, for whoever tells of it. The session counts it as kept until the plan
    ends; else nobody here looks into it."""


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


class Entry:
    """A planned call in its plan."""

    __slots__ = ("is_dropped", "is_left", "is_taken", "nonce", "planned", "task")

    def __init__(self, planned: PlannedCall, task: Task) -> None:
        self.planned = planned
        self.task = task
        self.nonce: str | None = None
        self.is_taken = False
        self.is_left = False
        """Its claimant has gone."""
        self.is_dropped = False
        """The app did something else, here or above; what feeds it is wanted for its push since."""

    @property
    def is_claimed(self) -> bool:
        return self.nonce is not None
