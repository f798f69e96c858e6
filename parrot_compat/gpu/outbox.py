"""Answers on their way out, and failures until whoever counts on the failed verb has surely been told.

A verb that was sent before that counts on what the failed one would have left in its context, whether it reaches the
engine before the failure or just after it. Nothing is known here of contexts but their ids.

The invariant: whether a verb fails for the sake of an earlier one does not depend on how fast either travelled.
"""

from __future__ import annotations

from parrot_compat.core.engine import ContextId
from parrot_compat.core.engine_front import Answer, Update
from parrot_compat.core.errors import ContextLost, ParrotError

__all__ = ["Outbox"]


class Outbox:
    def __init__(self) -> None:
        self.reports = 0
        """How often what was in here was taken."""
        self._updates: list[Update] = []
        self._failed: dict[int, tuple[ContextId, int]] = {}
        """By command: its context, and the number of the report that tells of the failure."""

    def answer(self, command: int, answer: Answer) -> None:
        self._updates.append(Update(command, answer))

    def fail(self, command: int, context: ContextId, error: ParrotError) -> None:
        """A verb on `context` came to nothing."""
        self.answer(command, error)
        self._failed[command] = context, self.reports + 1

    def fail_behind(self, command: int, context: ContextId, failed: ContextId) -> None:
        """A verb on `context` counted on one on `failed` that came to nothing."""
        error = ContextLost(f"context {failed}: the work that came before on it was not done")
        self.fail(command, context, error)

    def take(self) -> tuple[Update, ...]:
        """What the next report tells."""
        updates, self._updates = tuple(self._updates), []
        self.reports += 1
        return updates

    # ---- who has been told -------------------------------------------------------------------------

    def heard(self, report: int | None) -> None:
        """What comes next was sent by one who knew the reports up to this one; `None`: all there are."""
        self._failed = {id: each for id, each in self._failed.items() if report is not None and each[1] > report}

    def left(self, command: int) -> None:
        """Its caller wants nothing of it any more, and knows that it left nothing behind."""
        self._failed.pop(command, None)

    def freed(self, context: ContextId) -> None:
        """Whatever comes on this context from now on counts on nothing in it."""
        self._failed = {id: each for id, each in self._failed.items() if each[0] != context}

    def untold(self, *contexts: ContextId | None) -> ContextId | None:
        """The one of these that is not what the verb which comes now takes it for."""
        return next((context for context, _ in self._failed.values() if context in contexts), None)
