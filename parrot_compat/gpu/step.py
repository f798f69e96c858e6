"""Facts of one step: what the scheduler sees, and what it decides.

They know nothing of contexts, tensors or asyncio. A `SequenceView` shows a sequence between two steps; its lists are
the live ones, read only. A `StepPlan` is carried out or thrown away, never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PlannedRow", "Room", "SequenceView", "StepPlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceView:
    """A sequence as the scheduler sees it."""

    id: int
    """Ascending in order of arrival."""
    tokens: Sequence[int]
    computed: int
    """Tokens that are in the pages already."""
    pages: Sequence[int]
    """Pages it holds. Full pages are the tree's: the same page means the same text up to there."""
    is_started: bool
    """It takes part in steps; otherwise it waits, and what it holds is only cache found."""
    is_drawing: bool = False
    """Its prompt is computed: each step draws one token."""
    is_ahead: bool = False
    """Nobody waits for it: until it is due it takes what others leave."""
    due_s: float = 0.0
    """When its slack is used up, on the clock of `Room.now_s`."""
    flow: str = ""
    namespace: str = ""
    is_read: bool = False
    """It takes over nothing that another has computed."""

    @property
    def remaining(self) -> int:
        return len(self.tokens) - self.computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What one step may use."""

    rows: int
    tokens: int
    free_pages: int
    page_size: int
    now_s: float = 0.0
    shares_prefixes: bool = True
    has_idle: bool = False
    """Contexts that nobody works on hold pages, which can be taken."""

    def missing_pages(self, view: SequenceView) -> int:
        """Pages that all tokens of a sequence need beyond those it holds."""
        return max(0, -(-len(view.tokens) // self.page_size) - len(view.pages))


@dataclass(frozen=True, slots=True)
class PlannedRow:
    id: int
    tokens: int
    """How many of the sequence's next tokens are computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """Either rows to run, or what must give way first; then the step is planned again."""

    rows: tuple[PlannedRow, ...] = ()
    """The rows of the step, the most urgent first."""
    preempt: tuple[int, ...] = ()
    """Sequences that go back to waiting and give up their pages."""
    drop_idle_pages: int = 0
    """Pages that idle contexts are to give up, the least recently used first."""
