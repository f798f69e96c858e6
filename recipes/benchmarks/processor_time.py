"""Who used the processors: this run's own processes, or somebody else.

It reads /proc and knows nothing of what the processes do. Interrupts are nobody's; time stolen by other machines on
the same host is foreign.

The invariant: own + foreign = all that was busy. A round in which foreign work took more than 5 % of the machine is
no measurement.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MOST_FOREIGN", "Spent", "Stopwatch", "process_s", "settled"]

MOST_FOREIGN = 0.05
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Processor seconds between two looks."""

    elapsed_s: float
    client_s: float
    """This process: the apps themselves."""
    servers_s: float
    """Each lane's servers and proxies, with all their children."""
    foreign_share: float
    """Of all processors."""

    @property
    def is_quiet(self) -> bool:
        return self.foreign_share <= MOST_FOREIGN


class Stopwatch:
    """`servers` are processes whose whole trees are ours."""

    def __init__(self, servers: Collection[int]) -> None:
        self._servers = tuple(servers)
        self._began = time.perf_counter()
        self._busy, self._own = _busy_s(), self._spent()

    def read(self) -> Spent:
        busy = _busy_s() - self._busy
        client, servers = (now - before for now, before in zip(self._spent(), self._own, strict=True))
        elapsed = time.perf_counter() - self._began  # around all that was counted: shares are of no less time
        foreign = max(0.0, busy - client - servers) / (elapsed * (os.cpu_count() or 1))
        return Spent(elapsed_s=elapsed, client_s=client, servers_s=servers, foreign_share=foreign)

    def _spent(self) -> tuple[float, float]:
        spent, children = _processes()
        trees = sum(_tree_s(pid, spent, children) for pid in self._servers)
        return spent.get(os.getpid(), 0.0), trees


LOOK_S, LONGEST_S = 0.1, 5.0
IDLE_SHARE = 0.05


async def settled(servers: Collection[int]) -> None:
    """Wait until these process trees are idle (at most 5 s): what a lane's server still does after its answer, such as
    polling for the next request, would be taken from the lane that is measured next."""
    watch = Stopwatch(servers)
    for _ in range(int(LONGEST_S / LOOK_S)):
        await asyncio.sleep(LOOK_S)
        spent = watch.read()
        if spent.servers_s <= IDLE_SHARE * spent.elapsed_s:
            return
        watch = Stopwatch(servers)


def process_s(pid: int) -> float:
    """Processor seconds of one process and of those children of it that have ended."""
    return _processes()[0].get(pid, 0.0)


def _busy_s() -> float:
    """Of all processors since the machine began, without idling and interrupts."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _waiting, _irq, _softirq, stolen = fields[:8]
    return (user + nice + system + stolen) * _TICK_S


def _processes() -> tuple[dict[int, float], dict[int, list[int]]]:
    """Processor seconds of each process and of its children that have ended, and who started whom."""
    spent: dict[int, float] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # the name, in parentheses, may hold anything
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        pid = int(folder.name)
        children[int(fields[1])].append(pid)
        spent[pid] = sum(int(field) for field in fields[11:15]) * _TICK_S
    return spent, children


def _tree_s(pid: int, spent: dict[int, float], children: dict[int, list[int]]) -> float:
    return spent.get(pid, 0.0) + sum(_tree_s(child, spent, children) for child in children.get(pid, ()))
