"""Bisection, over a lane whose capacity is known because it is made of arithmetic."""

from __future__ import annotations

import pytest

from recipes.benchmarks.capacity import all_foreground, capacity
from recipes.benchmarks.cells import Cell
from recipes.benchmarks.clients import Client
from recipes.benchmarks.workloads import App, Round

from .made_cells import app, cell

TAKES_S = 0.2


async def queue_at(rate: float) -> Cell:
    """One server that takes 0.2 s for each of 100 requests, in order."""
    done, records = 0.0, []
    for number in range(100):
        due = number / rate
        done = max(done, due) + TAKES_S
        record = app(str(number), 0.0)
        record.due = record.started = due
        record.finished = done
        records.append(record)
    found = cell("a", 0, *records)
    found.makespan_s = done
    return found


@pytest.mark.parametrize("first", [0.01, 1.0, 4.0, 300.0])
async def test_the_rate_that_a_queue_can_bear_is_found_from_anywhere(first: float) -> None:
    # 3 completions of patience after 100 requests allow for a little more than 5 a second
    assert 4.2 < await capacity(queue_at, first) < 5.8


async def idle(client: Client) -> str:
    return ""


def test_a_rate_is_about_what_arrives_in_its_first_seconds() -> None:
    apps = [App(key="chain", run=idle)]
    apps += [App(key=str(number), run=idle, due_s=1.0 + number, group="background") for number in range(100)]
    arriving = all_foreground(Round(apps=apps)).apps
    assert [each.key for each in arriving] == [str(number) for number in range(20)]
    assert {each.group for each in arriving} == {"app"}
    few = all_foreground(Round(apps=[App(key=str(n), run=idle, due_s=100.0 * n + 1) for n in range(20)])).apps
    assert len(few) == 8
