"""The plans of one LangChain run, and what the symbolic run that made them covers.

It knows walks, and no callbacks. The invariant: what is covered is not planned again.
"""

from __future__ import annotations

from typing import Any

from parrot_compat.integrations.plans.book import PlanBook, SentPlan

from .walk import Walk

__all__ = ["RunPlan"]


class RunPlan(SentPlan):
    """What one symbolic run covers, and the plans that it sent. Shared by the runs of one batch."""

    def __init__(self, book: PlanBook, name: str, walk: Walk, users: int) -> None:
        super().__init__(book, name, users)
        self._walk = walk

    def covers(self, runnable: Any, step: int = 0) -> bool:
        return self._walk.covers(runnable, step)
