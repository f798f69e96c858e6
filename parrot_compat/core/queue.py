"""The queue of ready tasks of one model: whose turn it is.

It knows nothing of engines.

Tenants take turns by the tokens they were served. A tenant's tasks go in order of `Task.due_s`: its apps in the order
in which they began (an app that is nearly done is not overtaken by one that just came; one that never ends is, after
`task.HEAD_START_S`), the call of an app that has made no other as that of one that began so long ago, work with slack
as much later, and an app's tasks of equal slack in the order in which they became ready.

The invariant: a task that was put is here until it is started or forgotten.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from .task import Task

__all__ = ["ReadyQueue"]


def _cost(task: Task) -> int:
    assert task.rendered is not None
    return task.rendered.prompt_tokens + task.expected_tokens


_Entry = tuple[float, int, int, Task]
"""When it is due, order of the session, turn, task. A task that comes back has a new entry; the old one is not it."""


class _Lane:
    """One tenant's tasks and the tokens it was served while anybody waited."""

    def __init__(self, served_tokens: int) -> None:
        self.served_tokens = served_tokens
        self.waiting: list[_Entry] = []  # a heap, in which some have left


class ReadyQueue:
    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._tasks: dict[Task, _Entry] = {}
        self._floor_tokens = 0  # what the tenant last served had been served before: newcomers start here, not at zero

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(tuple(self._tasks))

    def put(self, task: Task) -> None:
        """`task.turn` is given by the scheduler; a task that comes back keeps it."""
        assert task.turn is not None and task not in self._tasks
        tenant = task.flow.tenant
        lane = self._lanes.get(tenant)
        if lane is None:
            lane = self._lanes[tenant] = _Lane(self._floor_tokens)
        elif not lane.waiting:
            lane.served_tokens = max(lane.served_tokens, self._floor_tokens)  # idling earns no credit
        entry = self._tasks[task] = (task.due_s, task.flow.order, task.turn, task)
        heapq.heappush(lane.waiting, entry)

    def first(self, tasks: int | None) -> list[Task]:
        """Up to `tasks` of them (`None`: all) in the order of their turns. They stay here."""
        served = {tenant: lane.served_tokens for tenant, lane in self._lanes.items()}
        taken: list[tuple[_Lane, _Entry]] = []
        while (tasks is None or len(taken) < tasks) and (tenant := self._next_tenant(served)) is not None:
            lane = self._lanes[tenant]
            entry = heapq.heappop(lane.waiting)
            taken.append((lane, entry))
            served[tenant] += _cost(entry[-1])
        for lane, entry in taken:
            heapq.heappush(lane.waiting, entry)
        return [entry[-1] for _, entry in taken]

    def start(self, task: Task) -> None:
        """It leaves for an engine, and its tokens count as served to its tenant."""
        lane = self._lanes[task.flow.tenant]
        self._floor_tokens = max(self._floor_tokens, lane.served_tokens)
        lane.served_tokens += _cost(task)
        self.forget(task)

    def forget(self, task: Task) -> None:
        """It ended while it waited. Does nothing if it is not here."""
        if task not in self._tasks:
            return
        del self._tasks[task]
        lane = self._lanes[task.flow.tenant]
        if len(lane.waiting) > 2 * len(self._tasks) + 64:  # mostly tasks that have left
            lane.waiting = [entry for entry in lane.waiting if self._is_here(entry)]
            heapq.heapify(lane.waiting)

    def check(self) -> None:
        here = [entry[-1] for lane in self._lanes.values() for entry in lane.waiting if self._is_here(entry)]
        assert len(here) == len(self._tasks) and set(here) == self._tasks.keys()

    # ---- inside ----------------------------------------------------------------------------------------

    def _is_here(self, entry: _Entry) -> bool:
        return self._tasks.get(entry[-1]) is entry

    def _next_tenant(self, served: dict[str, int]) -> str | None:
        """Of those with a task here, the one that was served least."""
        best: str | None = None
        for tenant, lane in self._lanes.items():
            while lane.waiting and not self._is_here(lane.waiting[0]):
                heapq.heappop(lane.waiting)
            if lane.waiting and (best is None or served[tenant] < served[best]):
                best = tenant
        return best
