"""Where a task stands on its way from acceptance to its result.

The invariant: the last three are for good.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TaskState"]


class TaskState(StrEnum):
    WAITING = "waiting"
    """Inputs are missing."""
    READY = "ready"
    """In the scheduler's queue."""
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
