"""Bisection, over a lane whose capacity is known because it is made of arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from recipes.benchmarks.capacity import arriving, capacity, is_sustained, light_of, one_by_one, window_s
from recipes.benchmarks.cells import Cell
from recipes.benchmarks.clients import Client
from recipes.benchmarks.workloads import App, Round

from .made_cells import app, cell

CHAT_S, JOB_S = 0.2, 2.0
LIGHT = {"chat": CHAT_S, "job": JOB_S}


async def idle(client: Client) -> str:
    return ""


def mixed(rate: float, calls: float) -> Round:
    """Chats at a rate, and one job for every twenty of them."""
    apps = [App(key="from the start", run=idle, group="chat")]
    for number in range(1, 1 + round(12 * calls)):
        group = "chat" if number % 20 else "job"
        apps.append(App(key=f"{group} {number}", run=idle, due_s=number / rate, group=group))
    return Round(apps=apps)


def served(wanted: Round, takes_s: Mapping[str, float]) -> Cell:
    """By two servers: one takes chats, the other jobs, each in their order."""
    free, records = dict.fromkeys(takes_s, 0.0), []
    for one in wanted.apps:
        started = max(free[one.group], one.due_s) if wanted.at_once is None else max(free.values())
        free[one.group] = started + takes_s[one.group]
        record = app(one.key, takes_s[one.group], group=one.group)
        records.append(dataclasses.replace(record, due=one.due_s, started=started, finished=free[one.group]))
    return cell("a", 0, *records)


async def found(takes_s: Mapping[str, float], first: float) -> float:
    light = light_of(served(one_by_one(mixed(1.0, 8.0)), takes_s))

    async def at(rate: float) -> Cell:
        return served(arriving(lambda calls: mixed(rate, calls), window_s(light)), takes_s)

    return await capacity(at, light, first)


@pytest.mark.parametrize("first", [0.01, 1.0, 4.0, 300.0])
async def test_the_rate_that_a_queue_can_bear_is_found_from_anywhere(first: float) -> None:
    # the patience of 3 completions allows for a little more than 5 chats a second
    assert 4.2 < await found({"chat": 0.2, "job": 0.4}, first) < 5.8


async def test_long_jobs_give_short_ones_no_patience() -> None:
    # with three jobs' time behind the last arrival hundreds of chats a second would seem to be borne
    assert 4.2 < await found({"chat": 0.2, "job": 3.0}, 1.0) < 5.8


async def test_the_group_that_piles_up_first_decides() -> None:
    # a job is one of twenty: at 8 chats a second 0.4 jobs are borne, of 2.5 seconds each
    rate = await found({"chat": 0.01, "job": 2.5}, 1.0)
    assert rate < 15, "chats alone would bear a hundred a second"


def test_a_rate_is_about_what_arrives_in_its_window() -> None:
    def build(calls: float) -> Round:
        apps = [App(key="chain", run=idle)]
        some = range(round(10 * calls))
        return Round(
            apps=apps + [App(key=str(number), run=idle, due_s=1.0 + number, group="background") for number in some]
        )

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
    groups = [each.group for each in alone.apps]
    assert groups == ["chat"] * 8 + ["job"] * 4


def test_the_window_is_several_times_the_shortest_patience() -> None:
    assert window_s({"chat": 2.0, "job": 9.0}) == 36.0
    assert window_s({"chat": 0.1}) == 20.0


def test_a_rate_at_which_an_app_fails_is_not_sustained() -> None:
    wanted = arriving(lambda calls: mixed(1.0, calls), 30.0)
    fine = served(wanted, LIGHT)
    assert is_sustained(fine, LIGHT)
    assert not is_sustained(dataclasses.replace(fine, apps=[*fine.apps, app("late", 0.0, error="no")]), LIGHT)


def test_where_an_app_fails_alone_nothing_is_searched() -> None:
    with pytest.raises(RuntimeError, match="had the server to itself failed: refused"):
        light_of(cell("a", 0, app("chat 1", 0.0, error="refused")))
