"""How long a part of a measurement may take. It ends between two of its cases, and names those that it leaves out.

The invariant: a case that has begun is finished, so a part may end later than its budget; none begins after it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

__all__ = ["Budget", "budgets"]


class Budget:
    def __init__(self, seconds: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self.left_out: list[str] = []
        """The cases, in the order in which they were to come."""
        self._clock = clock
        self._end_s = clock() + seconds

    def allows(self, case: str, at_least_s: float = 0.0) -> bool:
        """Whether it may begin, because more than `at_least_s` is left; otherwise it is left out."""
        if self.left_s > at_least_s:
            return True
        self.left_out.append(case)
        return False

    @property
    def left_s(self) -> float:
        return max(0.0, self._end_s - self._clock())

    def share(self, of_it: float) -> Budget:
        """One that may take this share of what is left."""
        return Budget(of_it * self.left_s, self._clock)


def budgets(said: str, parts: Sequence[str]) -> dict[str, float]:
    """Seconds by part: "120" is for each, "engine=240,kernels=90" for those; who is not named has no limit.

    Errors: `ValueError`."""
    found: dict[str, float] = {}
    for item in said.split(","):
        name, is_named, seconds = item.rpartition("=")
        if is_named and name not in parts:
            raise ValueError(f"{name!r} is none of {', '.join(parts)}")
        found |= dict.fromkeys([name] if is_named else parts, float(seconds))
    return found
