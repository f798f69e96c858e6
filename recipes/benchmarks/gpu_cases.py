"""The cases of a part, each by itself: one that fails is a row that says so, and the others are made all the same.

The invariant: a part of which a case failed ends with an error that names it, and nothing more is asked of a device
that is lost.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterable, Iterator

import torch

from .gpu_budget import Budget
from .gpu_rows import FAILURES, GpuRow, Where

__all__ = ["FAILED", "Cases", "CasesFailed", "give_back", "means_lost", "said"]

FAILED = "failed"
"""The note of what failed begins with it."""


class CasesFailed(Exception):
    """Some of a part did; it says which."""


class Cases:
    def __init__(self, part: str, device: torch.device, where: Where, budget: Budget) -> None:
        self.device = device
        self.where = where
        self._part = part
        self._budget = budget
        self._begun = 0
        self._failed: dict[str, str] = {}

    def of(self, case: str, rows: Callable[[], Iterable[GpuRow]], at_least_s: float = 0.0) -> Iterator[GpuRow]:
        """The case's rows and one that says whether it failed, in place of what an earlier run said. None of them, if
        the budget leaves it out. It may have cases of its own."""
        if not self._budget.allows(case, at_least_s):
            return
        self._begun += 1
        note = ""
        try:
            yield from rows()
        except Exception as error:
            if means_lost(error):
                raise
            traceback.print_exc()
            note = self._failed[case] = f"{FAILED}: {said(error)}"
        if note:
            give_back(self.device)  # not amid the error, whose frames hold what failed
        failed = [float(bool(note))]
        yield GpuRow.of(self.where, self._part, case, "suite", FAILURES, "cases", failed, note)

    def end(self) -> None:
        """Behind the last case. Errors: `CasesFailed`."""
        if self._failed:
            first = next(iter(self._failed.values()))
            count = f"{len(self._failed)} of {self._begun} cases failed"
            raise CasesFailed(f"{count}: {', '.join(self._failed)}; the first {first}")


def said(error: Exception) -> str:
    """In a line."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def means_lost(error: Exception) -> bool:
    """A device that reported an error answers nothing but errors from then on; that it has no room is none."""
    return isinstance(error, torch.AcceleratorError) and "out of memory" not in str(error)


def give_back(device: torch.device) -> None:
    """The memory of what is no longer held. A device that is lost raises, whoever heard of its error."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
