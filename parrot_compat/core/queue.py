"""The queue of ready tasks of one model: whose turn it is.

It knows nothing of engines.

Tenants take turns by the tokens they were served; a tenant's apps go in the order in which they began (an app that
is nearly done is not overtaken by one that just came), an app's tasks in the order in which they became ready.

The invariant: a task that was put is popped, or forgotten, exactly once.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from .task import Task

__all__ = ["ReadyQueue", "expected_output_tokens"]

_USUAL_OUTPUT_TOKENS = 128  # where the call gives no limit


def expected_output_tokens(task: Task) -> int:
    asked = task.call.sampling.max_tokens
    return _USUAL_OUTPUT_TOKENS if asked is None else min(asked, _USUAL_OUTPUT_TOKENS)


def _cost(task: Task) -> int:
    assert task.rendered is not None
    return task.rendered.prompt_tokens + expected_output_tokens(task)


class _Lane:
    """One tenant's tasks and the tokens it was served while anybody waited."""

    def __init__(self, served_tokens: float) -> None:
        self.served_tokens = served_tokens
        self.waiting: list[tuple[int, int, Task]] = []  # heap of (order of the session, turn, task)


class ReadyQueue:
    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._tasks: set[Task] = set()
        self._turns = itertools.count()
        self._floor_tokens = 0.0  # what the tenant last served had been served: newcomers start here, not at zero

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(tuple(self._tasks))

    def put(self, task: Task) -> None:
        """A task that comes back keeps its turn."""
        if task.turn is None:
            task.turn = next(self._turns)
        tenant = task.flow.tenant
        lane = self._lanes.get(tenant)
        if lane is None:
            lane = self._lanes[tenant] = _Lane(self._floor_tokens)
        elif not lane.waiting:
            lane.served_tokens = max(lane.served_tokens, self._floor_tokens)  # idling earns no credit
        heapq.heappush(lane.waiting, (task.flow.order, task.turn, task))
        self._tasks.add(task)

    def pop(self) -> Task | None:
        """The next in turn. Its tokens count as served to its tenant."""
        while open_lanes := [lane for lane in self._lanes.values() if lane.waiting]:
            lane = min(open_lanes, key=lambda lane: lane.served_tokens)
            _, _, task = heapq.heappop(lane.waiting)
            if task in self._tasks:
                self._tasks.discard(task)
                self._floor_tokens = max(self._floor_tokens, lane.served_tokens)
                lane.served_tokens += _cost(task)
                return task
        return None

    def put_back(self, task: Task) -> None:
        """It was popped and could not start: as if it had not been popped."""
        self.put(task)
        self._lanes[task.flow.tenant].served_tokens -= _cost(task)

    def forget(self, task: Task) -> None:
        """It ended while it waited. Does nothing if it is not here."""
        if task not in self._tasks:
            return
        self._tasks.discard(task)
        lane = self._lanes[task.flow.tenant]
        if len(lane.waiting) > 2 * len(self._tasks) + 64:  # more corpses than tasks
            lane.waiting = [entry for entry in lane.waiting if entry[2] in self._tasks]
            heapq.heapify(lane.waiting)

    def check(self) -> None:
        waiting = [entry[2] for lane in self._lanes.values() for entry in lane.waiting]
        assert len(set(waiting)) == len(waiting) and self._tasks <= set(waiting)
