"""One cell of a run: one round of a workload, in one lane, from one distance.

It runs apps and writes down what they saw. It knows nothing of other cells or of what is compared with what.

The invariant: a cell holds everything that tables, comparisons and plots are made of, and nothing is computed twice;
its times are seconds since the first app of the cell was due.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from .clients import CallRecord, Client, Endpoint
from .processor_time import Spent, Stopwatch
from .recordings import Replay
from .server_counts import added, read_counts
from .workloads import App, Round

__all__ = ["AppRecord", "Cell", "Place", "run_cell"]

BACKGROUND = "background"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which cell."""

    workload: str
    variant: str
    load: float | None
    """Of the baseline's capacity, where apps arrive by themselves."""
    rtt_ms: float
    round: int
    lane: str

    @property
    def row(self) -> tuple[str, str, float | None, float]:
        """What is compared across lanes and summed up over rounds."""
        return self.workload, self.variant, self.load, self.rtt_ms


@dataclass(slots=True, kw_only=True)
class AppRecord:
    key: str
    group: str
    due: float
    started: float
    first_text: float | None
    finished: float | None
    waited_s: float
    answer: str
    error: str
    calls: list[CallRecord]

    @property
    def completion_s(self) -> float:
        assert self.finished is not None
        return self.finished - self.started


@dataclass(slots=True, kw_only=True)
class Cell:
    place: Place
    began: float
    """Seconds since the epoch."""
    makespan_s: float
    spent: Spent
    apps: list[AppRecord]
    server: dict[str, float] = field(default_factory=dict)
    """What its server says of its own work (`server_counts`); empty where it says nothing."""
    hardware: str = ""
    commit: str = ""
    date: str = ""
    """Of the process that measured it (`Run.stamp`). A cell that says nothing is as old as its run."""

    @property
    def foreground(self) -> list[AppRecord]:
        return [app for app in self.apps if app.group != BACKGROUND]

    @property
    def calls(self) -> list[CallRecord]:
        return [call for app in self.apps for call in app.calls]

    @property
    def errors(self) -> list[str]:
        return [app.error for app in self.apps if app.error]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Cell:
        apps = [AppRecord(**(app | {"calls": [CallRecord(**call) for call in app["calls"]]})) for app in value["apps"]]
        known = {"place": Place(**value["place"]), "spent": Spent(**value["spent"]), "apps": apps}
        return cls(**(value | known))


Replays = Callable[[App], Replay | None]


async def run_cell(
    place: Place,
    wanted: Round,
    endpoint: Endpoint,
    pids: Collection[int],
    replays: Replays = lambda app: None,
) -> Cell:
    """Run the apps of a round in one lane, to their end. An app that fails is an error in the cell, not of it.
    `replays` is what the calls of an app are to say."""
    gc.collect()
    before = await asyncio.to_thread(read_counts, endpoint.metrics_url)
    began, watch, start = time.time(), Stopwatch(pids), time.perf_counter()
    room = asyncio.Semaphore(wanted.at_once or len(wanted.apps))
    running = [
        (app, asyncio.create_task(_run(app, Client(endpoint, replay=replays(app)), start, room))) for app in wanted.apps
    ]
    try:
        records = await asyncio.gather(*(task for app, task in running if app.group != BACKGROUND))
        makespan = time.perf_counter() - start
    finally:
        for _, task in running:
            task.cancel()
    for app, task in running:
        if app.group == BACKGROUND:
            with contextlib.suppress(asyncio.CancelledError):
                records.append(await task)
    spent = watch.read()
    counted = added(before, await asyncio.to_thread(read_counts, endpoint.metrics_url))
    return Cell(place=place, began=began, makespan_s=makespan, spent=spent, apps=records, server=counted)


async def _run(app: App, client: Client, start: float, room: asyncio.Semaphore) -> AppRecord:
    await asyncio.sleep(max(0.0, start + app.due_s - time.perf_counter()))
    async with room:
        started, finished = time.perf_counter(), None
        answer = error = ""
        try:
            answer = await app.run(client)
            finished = time.perf_counter()
        except Exception as raised:  # whatever an app raises is what its user would have got
            error = f"{type(raised).__name__}: {raised}"
    for call in client.calls:
        call.submitted -= start
        call.first = None if call.first is None else call.first - start
        call.finished = None if call.finished is None else call.finished - start
    return AppRecord(
        key=app.key,
        group=app.group,
        due=app.due_s,
        started=started - start,
        first_text=None if client.first_text is None else client.first_text - start,
        finished=None if finished is None else finished - start,
        waited_s=client.waited_s,
        answer=answer,
        error=error,
        calls=client.calls,
    )
