"""What a lane can bear: the highest rate of arrivals at which work does not pile up, by bisection.

It runs cells and knows nothing of why a lane is as fast as it is.

The invariant: the rate that is returned was sustained, and one at most 1/8 above it was not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

from .cells import Cell
from .results import quantile
from .workloads import App, Round

__all__ = ["arriving", "capacity", "is_sustained", "light_of", "one_by_one", "window_s"]

PRECISION = 8
PATIENCE = 3.0
"""A rate is sustained if all is done this many light completions after the last arrival."""
STEADY = 6
"""Arrivals last so many times that patience: of a rate 1.2 times too high, more than that has piled up by then."""
WINDOW_S = 20.0
LEAST_APPS = 8
FARTHEST = 1024
"""Times the first rate: nothing slower or faster is tried."""


def one_by_one(wanted: Round) -> Round:
    """The first that arrive, each after the one before it has ended."""
    return Round(apps=[dataclasses.replace(app, due_s=0.0) for app in _arrivals(wanted)[:LEAST_APPS]], at_once=1)


def light_of(cell: Cell) -> float:
    """Nine in ten apps take no longer where each has the server to itself, in seconds.

    Errors: `RuntimeError` where one failed.
    """
    if cell.errors:
        raise RuntimeError(f"no rate can be found: an app that had the server to itself failed: {cell.errors[0]}")
    return quantile([app.completion_s for app in cell.apps], 0.9)


def window_s(light_s: float) -> float:
    return max(WINDOW_S, STEADY * PATIENCE * light_s)


def arriving(build: Callable[[float], Round], seconds: float) -> Round:
    """What arrives in so many seconds, all of which has to finish, and nothing that is there from the start. `build`
    makes a round of so many times the workload's calls."""
    calls, apps = 1.0, _arrivals(build(1.0))
    while apps and (apps[-1].due_s <= seconds or len(apps) < LEAST_APPS):
        calls *= 2
        apps = _arrivals(build(calls))
    return Round(apps=[app for number, app in enumerate(apps) if app.due_s <= seconds or number < LEAST_APPS])


def is_sustained(cell: Cell, light_s: float) -> bool:
    last = max(app.due for app in cell.apps)
    return not cell.errors and cell.makespan_s - last <= PATIENCE * light_s


async def capacity(run: Callable[[float], Awaitable[Cell]], light_s: float, first: float) -> float:
    """`run` makes the cell of a rate; `first` is a rate that may be anything. A few minutes."""
    low, high = first, 2 * first
    if is_sustained(await run(first), light_s):
        while high < first * FARTHEST and is_sustained(await run(high), light_s):
            low, high = high, high * 2
    else:
        low, high = first / 2, first
        while low * FARTHEST > first and not is_sustained(await run(low), light_s):
            low, high = low / 2, low
    while (high - low) * PRECISION > low:
        middle = (low + high) / 2
        if is_sustained(await run(middle), light_s):
            low = middle
        else:
            high = middle
    return low


def _arrivals(wanted: Round) -> list[App]:
    """In their order, each to be finished."""
    apps = sorted((app for app in wanted.apps if app.due_s > 0), key=lambda app: app.due_s)
    return [dataclasses.replace(app, group="app") for app in apps]
