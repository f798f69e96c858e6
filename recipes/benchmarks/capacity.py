"""What a lane can bear: the highest rate of arrivals at which work does not pile up, by bisection.

It runs cells and knows nothing of why a lane is as fast as it is.

The invariant: every rate below the one that is returned was sustained, and one at most 1/8 above it was not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

from .cells import Cell
from .results import quantile
from .workloads import Round

__all__ = ["all_foreground", "capacity", "is_sustained"]

PRECISION = 8
PATIENCE = 3.0
"""A rate is sustained if all is done this many light-load completions after the last arrival."""
WINDOW_S = 20.0
LEAST_APPS = 8
FARTHEST = 1024
"""Times the first rate: nothing slower or faster is tried."""


def all_foreground(wanted: Round) -> Round:
    """The arrivals of its first seconds, and nothing that is there from the start; all of them have to finish."""
    arriving = sorted((app for app in wanted.apps if app.due_s > 0), key=lambda app: app.due_s)
    few = [app for number, app in enumerate(arriving) if app.due_s <= WINDOW_S or number < LEAST_APPS]
    return Round(apps=[dataclasses.replace(app, group="app") for app in few], at_once=wanted.at_once)


def is_sustained(cell: Cell, light_s: float) -> bool:
    last = max(app.due for app in cell.apps)
    return not cell.errors and cell.makespan_s - last <= PATIENCE * light_s


async def capacity(run: Callable[[float], Awaitable[Cell]], first: float) -> float:
    """`run` makes the cell of a rate; `first` is a rate that may be anything. A few minutes."""
    rate = first
    cell = await run(rate)
    light_s = quantile([app.completion_s for app in cell.apps], 0.9)
    while not is_sustained(cell, light_s) or light_s > 1 / rate:
        # too busy to say how long one takes by itself
        if rate * FARTHEST < first:
            break
        rate /= 4
        cell = await run(rate)
        light_s = min(light_s, quantile([app.completion_s for app in cell.apps], 0.9))
    low, high = rate, rate * 2
    while high < first * FARTHEST and is_sustained(await run(high), light_s):
        low, high = high, high * 2
    while (high - low) * PRECISION > low:
        middle = (low + high) / 2
        if is_sustained(await run(middle), light_s):
            low = middle
        else:
            high = middle
    return low
