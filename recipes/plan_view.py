"""What the planner made of an app: the graph that it saw, and how the answer of each call came.

    with watch_plans() as plans:
        chain.invoke(…, {"callbacks": [log]})
    plans.show(console, log)

It reads the planner's own records and the log of LangChain's callbacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from call_log import CallLog
from drawing import draw
from rich.console import Console
from rich.text import Text

from parrot_compat.integrations.langchain import PlanRecord, listen


class Plans:
    """The plans that ended while they were watched."""

    def __init__(self) -> None:
        self.records: list[PlanRecord] = []

    @property
    def sources(self) -> dict[UUID, str]:
        """How the answer of a run came: pushed, claimed, or direct (also of runs that are not here)."""
        calls = (call for record in self.records for call in record.calls)
        return {call.taken_by: call.source or "direct" for call in calls if call.taken_by is not None}

    @property
    def not_taken(self) -> int:
        """Planned calls that the app did not make."""
        return sum(call.taken_s is None for record in self.records for call in record.calls)

    def drawing(self, log: CallLog, width: int = 80) -> str:
        """Every call of the log, with the edges that were planned; calls that were not planned have none."""
        runs = {call.id: str(call.taken_by) for record in self.records for call in record.calls if call.taken_by}
        reads = {
            runs[call.id]: {runs[read] for read in call.reads if read in runs}
            for record in self.records
            for call in record.calls
            if call.id in runs
        }
        return draw({str(run): call.name for run, call in log.in_order.items()}, reads, width)

    def show(self, console: Console, log: CallLog) -> None:
        console.print(Text(self.drawing(log, console.width), no_wrap=True))
        console.print(log.table(self.sources))


@contextmanager
def watch_plans() -> Iterator[Plans]:
    plans = Plans()
    unlisten = listen(plans.records.append)
    try:
        yield plans
    finally:
        unlisten()
