"""Bisection, over a lane whose capacity is known because it is made of arithmetic."""

from __future__ import annotations

import dataclasses

import pytest

from recipes.benchmarks.capacity import arriving, capacity, is_sustained, light_of, one_by_one, window_s
from recipes.benchmarks.cells import Cell
from recipes.benchmarks.clients import Client
from recipes.benchmarks.workloads import App, Round

from .made_cells import app, cell

CHAT_S, JOB_S = 0.1, 2.1
"""With one job for every nineteen chats, 0.2 s for each: five are borne in a second."""


async def idle(client: Client) -> str:
    return ""


def mixed(rate: float, calls: float, count: int = 12) -> Round:
    """One at the start, then chats at a rate, with one job for every nineteen of them."""
    apps = [App(key="from the start", run=idle)]
    for number in range(1, 1 + round(count * calls)):
        group = "chat" if number % 20 else "job"
        apps.append(App(key=f"{group} {number}", run=idle, due_s=number / rate, group=group))
    return Round(apps=apps)


def served(wanted: Round) -> Cell:
    """By one server, in their order."""
    free_s, records = 0.0, []
    for one in wanted.apps:
        takes_s = JOB_S if one.key.startswith("job") else CHAT_S
        started = max(free_s, one.due_s)
        free_s = started + takes_s
        record = app(one.key, takes_s)
        records.append(dataclasses.replace(record, due=one.due_s, started=started, finished=free_s))
    return dataclasses.replace(cell("a", 0, *records), makespan_s=free_s)


@pytest.mark.parametrize("first", [0.01, 1.0, 4.0, 300.0])
@pytest.mark.parametrize("light_s", [JOB_S, 3 * JOB_S])
async def test_the_rate_that_a_queue_can_bear_is_found_from_anywhere(first: float, light_s: float) -> None:
    async def at(rate: float) -> Cell:
        return served(arriving(lambda calls: mixed(rate, calls), window_s(light_s)))

    # what may be left when the last arrives allows for a little more than five, one eighth is how near it looks
    assert 4.2 < await capacity(at, light_s, first) < 6.1


async def test_few_long_jobs_are_not_borne_at_any_rate() -> None:
    """A round that is over before the patience is: however fast it arrives, all is done in time."""

    def at(rate: float) -> Cell:
        return served(Round(apps=mixed(rate, 1.0, count=40).apps))

    assert is_sustained(at(1000.0), 3 * JOB_S), "40 of them take 8 s, and the patience is 18.9 s"
    assert not is_sustained(served(arriving(lambda calls: mixed(1000.0, calls), 1.0)), 3 * JOB_S)


def test_a_rate_is_about_what_arrives_in_its_window() -> None:
    def build(calls: float) -> Round:
        some = range(round(10 * calls))
        arrive = [App(key=str(number), run=idle, due_s=1.0 + number, group="background") for number in some]
        return Round(apps=[App(key="chain", run=idle), *arrive])

    apps = arriving(build, 36.0).apps
    assert [each.key for each in apps] == [str(number) for number in range(36)]
    assert {each.group for each in apps} == {"app"}


def test_however_slow_a_rate_is_some_apps_arrive() -> None:
    def build(calls: float) -> Round:
        return Round(apps=[App(key=str(n), run=idle, due_s=100.0 * n + 1) for n in range(round(3 * calls))])

    assert len(arriving(build, 20.0).apps) == 8


def test_apps_have_the_server_to_themselves_one_after_the_other() -> None:
    alone = one_by_one(mixed(1.0, 8.0))
    assert alone.at_once == 1 and not any(each.due_s for each in alone.apps)
    assert [each.key for each in alone.apps] == [f"chat {number}" for number in range(1, 9)]
    found = light_of(cell("a", 0, *(app(str(number), number / 10) for number in range(1, 12))))
    assert found == pytest.approx(1.0)


def test_the_window_is_several_times_the_patience() -> None:
    assert window_s(2.0) == 36.0
    assert window_s(0.1) == 20.0


def test_a_rate_at_which_an_app_fails_is_not_sustained() -> None:
    fine = served(arriving(lambda calls: mixed(1.0, calls), 30.0))
    assert is_sustained(fine, JOB_S)
    assert not is_sustained(dataclasses.replace(fine, apps=[*fine.apps, app("late", 0.0, error="no")]), JOB_S)


def test_where_an_app_fails_alone_nothing_is_searched() -> None:
    with pytest.raises(RuntimeError, match="had the server to itself failed: refused"):
        light_of(cell("a", 0, app("chat 1", 0.0, error="refused")))
