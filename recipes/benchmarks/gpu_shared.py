"""Whole decode steps of rows whose prompts begin alike, with what is shared read together and apart.

The invariant: only how keys are read differs between the two. Beginnings are computed once in both, and found.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

from parrot_compat.gpu.runner import ModelRunner

from .gpu_budget import Budget
from .gpu_rows import GpuRow, Where
from .gpu_shapes import Load
from .gpu_steps import Steps, drawing_s, outputs

__all__ = ["Group", "shared_steps"]

Group = tuple[str, int]
"""(its name, rows)"""


def shared_steps(name: str, runner: ModelRunner, load: Load, where: Where, budget: Budget) -> Iterator[GpuRow]:
    """Whether prefixes are read together is the engine's own choice: rows say of how many it was made."""
    tail = f"{load.front} shared {load.private} private"
    middle = load.front_rows[len(load.front_rows) // 2]
    cases: dict[str, tuple[list[Group], int]] = {
        **{f"{name} decode {rows} rows {tail}": ([("g", rows)], 0) for rows in load.front_rows},
        f"{name} decode 2 groups of {middle} rows and 1 row, {tail}": ([("g", middle), ("h", middle)], 1),
    }
    for case, (groups, strangers) in cases.items():
        if budget.allows(case):
            yield from _beside(case, runner, load, groups, strangers, where)


def _beside(
    case: str, runner: ModelRunner, load: Load, groups: list[Group], strangers: int, where: Where
) -> Iterator[GpuRow]:
    row = partial(GpuRow.of, where, "engine", case)
    found = {}
    for system, is_shared in (("ours, apart", False), ("ours, together", True)):
        steps = Steps(runner, enforce_eager=False, async_scheduling=True, share_prefixes=is_shared)
        found[system] = _decode_s(steps, load, groups, strangers)
        yield row(system, "time of a step", "s", found[system])
        yield row(system, "prefixes read together", "1", [max(steps.launches.shared)])
    pairs = zip(found["ours, apart"], found["ours, together"], strict=True)
    yield row("ours, together", "speedup", "ratio", [apart / together for apart, together in pairs])


def _decode_s(steps: Steps, load: Load, groups: list[Group], strangers: int) -> list[float]:
    """Seconds of a step of rows that begin as others do, group by group, and of strangers who begin as nobody does."""
    drawn = random.Random(load.front)

    def text(tokens: int) -> list[int]:
        return [drawn.randrange(3, 500) for _ in range(tokens)]

    rows = sum(members for _, members in groups) + strangers
    out = outputs(steps, rows * load.private + strangers * load.front, load.tries)
    own = load.private - out // 2
    fronts = {group: text(load.front) for group, _ in groups}
    for front in fronts.values():
        steps.know(front)
    for group, members in groups:
        steps.ask([(fronts[group] + text(own), out) for _ in range(members)])
    if strangers:
        steps.ask([(text(load.front + own), out) for _ in range(strangers)])
    return drawing_s(steps, rows, load.tries)
