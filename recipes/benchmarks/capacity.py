"""What a lane can bear: the highest rate of arrivals at which work does not pile up, by bisection.

It runs cells and knows nothing of why a lane is as fast as it is.

The invariant: the rate that is returned was sustained, and one at most 1/8 above it was not.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

from .cells import BACKGROUND, AppRecord, Cell
from .results import quantile
from .workloads import App, Round

__all__ = ["Light", "arriving", "capacity", "is_sustained", "light_of", "one_by_one", "window_s"]

PRECISION = 8
PATIENCE = 3.0
"""A rate is sustained if, of each group, all is done this many light completions after its last arrival."""
STEADY = 6
"""Arrivals last so many times the shortest patience: of a rate 1.2 times too high, more than that has piled up then."""
WINDOW_S = 20.0
LEAST_APPS = 8
FARTHEST = 1024
"""Times the first rate: nothing slower or faster is tried."""

Light = Mapping[str, float]
"""By group, how long an app takes where it has the server to itself, in seconds."""


def one_by_one(wanted: Round) -> Round:
    """Some of what arrives, of each group, each after the one before it has ended."""
    few: dict[str, list[App]] = defaultdict(list)
    for app in _arrivals(wanted):
        few[app.group].append(dataclasses.replace(app, due_s=0.0))
    return Round(apps=[app for apps in few.values() for app in apps[:LEAST_APPS]], at_once=1)


def light_of(cell: Cell) -> Light:
    """Nine in ten apps of a group take no longer. Errors: `RuntimeError` where one failed."""
    if cell.errors:
        raise RuntimeError(f"no rate can be found: an app that had the server to itself failed: {cell.errors[0]}")
    return {group: quantile([app.completion_s for app in apps], 0.9) for group, apps in _by_group(cell).items()}


def window_s(light: Light) -> float:
    return max(WINDOW_S, STEADY * PATIENCE * min(light.values()))


def arriving(build: Callable[[float], Round], seconds: float) -> Round:
    """What arrives in so many seconds, all of which has to finish, and nothing that is there from the start. `build`
    makes a round of so many times the workload's calls."""
    calls, apps = 1.0, _arrivals(build(1.0))
    while apps and (apps[-1].due_s <= seconds or len(apps) < LEAST_APPS):
        calls *= 2
        apps = _arrivals(build(calls))
    return Round(apps=[app for number, app in enumerate(apps) if app.due_s <= seconds or number < LEAST_APPS])


def is_sustained(cell: Cell, light: Light) -> bool:
    return not cell.errors and all(
        max(app.started + app.completion_s for app in apps) - max(app.due for app in apps) <= PATIENCE * light[group]
        for group, apps in _by_group(cell).items()
    )


async def capacity(run: Callable[[float], Awaitable[Cell]], light: Light, first: float) -> float:
    """`run` makes the cell of a rate; `first` is a rate that may be anything. A few minutes."""
    low, high = first, 2 * first
    if is_sustained(await run(first), light):
        while high < first * FARTHEST and is_sustained(await run(high), light):
            low, high = high, high * 2
    else:
        low, high = first / 2, first
        while low * FARTHEST > first and not is_sustained(await run(low), light):
            low, high = low / 2, low
    while (high - low) * PRECISION > low:
        middle = (low + high) / 2
        if is_sustained(await run(middle), light):
            low = middle
        else:
            high = middle
    return low


def _arrivals(wanted: Round) -> list[App]:
    """In their order, each to be finished."""
    apps = sorted((app for app in wanted.apps if app.due_s > 0), key=lambda app: app.due_s)
    return [dataclasses.replace(app, group="app") if app.group == BACKGROUND else app for app in apps]


def _by_group(cell: Cell) -> Mapping[str, list[AppRecord]]:
    groups: dict[str, list[AppRecord]] = defaultdict(list)
    for app in cell.apps:
        groups[app.group].append(app)
    return groups
