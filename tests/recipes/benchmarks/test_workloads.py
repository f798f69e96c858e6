"""The ten workloads as apps, against a scripted server: how many calls, of which sizes, and the same in each lane."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections import Counter

import pytest

from recipes.benchmarks.cells import Cell, Place, run_cell
from recipes.benchmarks.checkpoints import folder
from recipes.benchmarks.clients import Client, Endpoint
from recipes.benchmarks.text import FreshText, open_tokenizer
from recipes.benchmarks.workloads import WORKLOADS, App, Round, Shape

SMALL = Shape(tokens=0.01, calls=0.1, rate=200.0, tool_s=0.0001)
PLACE = Place(workload="w", variant="v", load=None, rtt_ms=0, round=0, lane="scripted")


def build(name: str, shape: Shape = SMALL, variant: str | None = None, seed: str = "a round") -> Round:
    workload = WORKLOADS[name]
    chosen = variant or next(iter(workload.variants))
    return workload.variants[chosen](shape, FreshText(open_tokenizer(folder("builtin:tiny")), seed))


async def run(wanted: Round, endpoint: Endpoint) -> Cell:
    cell = await run_cell(PLACE, wanted, endpoint, ())
    assert cell.errors == []
    return cell


@pytest.mark.parametrize("name", WORKLOADS)
async def test_every_call_has_a_name_of_its_own_and_the_length_that_was_asked_for(
    name: str, endpoint: Endpoint
) -> None:
    cell = await run(build(name), endpoint)
    for app in cell.apps:
        assert max(Counter(call.name for call in app.calls).values()) == 1
    assert all(call.output_tokens == call.max_tokens > 0 for call in cell.calls)
    assert all(call.prompt_tokens > 0 and call.finished is not None for call in cell.calls)


@pytest.mark.parametrize("name", WORKLOADS)
async def test_two_lanes_ask_the_same(name: str, endpoint: Endpoint) -> None:
    cells = [await run(build(name), endpoint) for _ in range(2)]
    one, other = (
        sorted((app.key, app.due, call.name, call.prompt, call.text) for app in cell.foreground for call in app.calls)
        for cell in cells
    )
    assert one == other


@pytest.mark.parametrize("name", WORKLOADS)
async def test_another_round_arrives_the_same_and_asks_nothing_again(name: str, endpoint: Endpoint) -> None:
    shape = dataclasses.replace(SMALL, tokens=0.25)  # the least that counts: even a chat has a number of its own
    rounds = [build(name, shape, seed="round 1"), build(name, shape, seed="round 2")]
    one, other = rounds
    assert [(app.key, app.due_s) for app in one.apps] == [(app.key, app.due_s) for app in other.apps]
    asked = [{call.prompt for call in (await run(wanted, endpoint)).calls} for wanted in rounds]
    assert not asked[0] & asked[1]


async def test_a_chain_reads_its_parts_one_after_the_other(endpoint: Endpoint) -> None:
    cell = await run(build("w01", Shape(tokens=0.01)), endpoint)
    calls = cell.apps[0].calls
    assert [call.name for call in calls] == [f"refine-{number}" for number in range(65)]
    for before, after in itertools.pairwise(calls):
        assert before.finished is not None
        assert before.finished <= after.submitted
    assert cell.apps[0].first_text is not None
    assert cell.apps[0].answer == calls[-1].text


async def test_a_map_reduce_asks_all_maps_before_any_has_answered(endpoint: Endpoint) -> None:
    cell = await run(build("w03", Shape(tokens=0.01)), endpoint)
    maps = [call for call in cell.calls if call.name.startswith("map-")]
    reduce = next(call for call in cell.calls if call.name == "reduce")
    assert len(maps) == 60
    assert reduce.submitted >= max(call.finished or 0 for call in maps)


async def test_a_coding_team_makes_nine_calls_for_each_file(endpoint: Endpoint) -> None:
    cell = await run(build("w06", Shape(tokens=0.02), "files8"), endpoint)
    kinds = Counter(call.name.rstrip("0123456789").rstrip("-") for call in cell.calls)
    assert kinds["architect"] == 1
    assert kinds["code"] == 8
    assert sum(kinds.values()) == 1 + 8 * 9


async def test_prompts_of_the_coding_team_have_the_recorded_sizes(endpoint: Endpoint) -> None:
    cell = await run(build("w06", Shape(tokens=0.25), "files4"), endpoint)
    # the scripted server counts characters and draws one for each token: sizes are checked by what is drawn
    drawn = {call.name: call.max_tokens for call in cell.calls}
    assert (drawn["architect"], drawn["code-0"], drawn["review0-0"], drawn["revise3-3"]) == (125, 125, 80, 125)


async def test_the_copilot_shares_its_system_prompt_and_runs_so_many_at_a_time(endpoint: Endpoint) -> None:
    wanted = build("w04", Shape(tokens=0.02), "batch8")
    assert wanted.at_once == 8
    assert len(wanted.apps) == 64
    cell = await run(wanted, endpoint)
    spans = [(app.started, app.finished or 0.0) for app in cell.apps]
    assert max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans) <= 8


def test_copilot_lengths_follow_what_was_recorded() -> None:
    from recipes.benchmarks.workloads.w04_copilot import _lengths

    prompts, outs = zip(*_lengths(4000), strict=True)
    assert min(prompts) >= 5224 and max(prompts) <= 7492
    assert abs(sum(prompts) / len(prompts) - 6167) < 150
    assert min(outs) >= 183 and max(outs) <= 800
    assert abs(sum(outs) / len(outs) - 331) < 25


def test_arrivals_keep_the_rate() -> None:
    apps = build("w05", Shape(tokens=0.01, rate=4.0)).apps
    assert len(apps) == 300
    assert abs(300 / apps[-1].due_s - 4.0) < 0.6
    assert sorted(Counter(app.key.rpartition("-")[0] for app in apps)) == [
        "data-analysis",
        "image",
        "productivity",
        "programming",
    ]


async def test_background_ends_with_the_apps_it_runs_beside(endpoint: Endpoint) -> None:
    async def short(client: Client) -> str:
        return await client.ask([{"role": "user", "content": "be quick"}], 2, name="only")

    async def endless(client: Client) -> str:
        await asyncio.sleep(3600)
        return "never"

    apps = [App(key="app", run=short), App(key="b", run=endless, group="background")]
    began = time.monotonic()
    cell = await run_cell(PLACE, Round(apps=apps), endpoint, ())
    assert time.monotonic() - began < 60
    assert [app.key for app in cell.foreground] == ["app"]


async def test_the_history_of_an_agent_only_grows(endpoint: Endpoint) -> None:
    cell = await run(build("w09", Shape(tokens=0.05, calls=0.3, tool_s=0.001)), endpoint)
    for app in cell.apps:
        sizes = [call.prompt_tokens for call in app.calls]
        assert sizes == sorted(sizes)
        assert len(sizes) >= 3
        assert app.waited_s > 0


async def test_what_an_app_raises_is_an_error_of_its_cell(endpoint: Endpoint) -> None:
    async def breaks(client: Client) -> str:
        raise ValueError("the app is wrong")

    cell = await run_cell(PLACE, Round(apps=[App(key="a", run=breaks)]), endpoint, ())
    assert cell.errors == ["ValueError: the app is wrong"]
