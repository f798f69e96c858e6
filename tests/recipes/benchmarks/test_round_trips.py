"""The benchmark of round trips, small: real server, real proxy, scripted engine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from parrot_compat.integrations.langchain import ChatParrot
from recipes.benchmarks.measured import read
from recipes.benchmarks.round_trip_apps import APPS
from recipes.benchmarks.round_trips import (
    HAS_PROC,
    ON,
    SCRIPTED,
    Place,
    Times,
    fresh_parts,
    main,
    round_trips,
    run,
    started,
)

CHAINS = [app for app in ("chain", "LlamaIndex refine") if app in APPS]
UNPLANNED = {"agent with a tool"}
"""What it asks next is in no chain: it is decided by an answer."""


def test_it_measures_both_lanes_and_writes_them_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rtt-ms", "0", "20", "--rounds", "1", "--calls", "3", "--engines", "scripted", "--apps", *CHAINS]
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    assert "0 planned calls in vain" in capsys.readouterr().out
    path = tmp_path / "round_trips.csv"
    if importlib.util.find_spec("matplotlib") is not None:
        assert "planner on" in (tmp_path / "round_trips-scripted.svg").read_text()
    assert path.read_text().startswith("# python -m recipes.benchmarks.round_trips --rtt-ms 0 20 ")
    rows = {(row["workload"], row["system"], row["metric"]): float(row["p50"]) for row in read(path)}
    of_all = {"completion", "speedup"} | ({"foreign_cpu_share"} if HAS_PROC else set())
    assert {metric for _, _, metric in rows} == of_all | {"round_trips", "pushed", "claimed", "direct"}
    for app in CHAINS:
        assert rows[f"{app} of 3 calls, 0 ms round trip, scripted engine", "planner on", "completion"] > 0
        far = f"{app} of 3 calls, 20 ms round trip, scripted engine"
        assert [rows[far, "planner off", word] for word in ("pushed", "claimed", "direct")] == [0, 0, 3]
        assert [rows[far, "planner on", word] for word in ("pushed", "claimed", "direct")] == [3, 0, 0]
        assert rows[far, "planner off", "completion"] >= 3 * 0.02
        assert rows[far, "planner on", "completion"] >= 0.02
        assert {(far, "planner on", "speedup"), (far, "planner on", "round_trips")} <= rows.keys()


async def test_every_app_gives_the_same_answer_with_and_without_planner() -> None:
    with started(SCRIPTED) as url:
        llm = ChatParrot(base_url=url, max_retries=0, max_tokens=12, temperature=0, extra_body={"ignore_eos": True})
        for app in APPS:
            parts = fresh_parts(3, app)
            _, plain, direct = await run(app, llm, parts, planner=False)
            _, planned, came = await run(app, llm, parts, planner=True)
            assert planned == plain, app
            assert direct.pushed + direct.claimed == 0 and direct.direct >= came.direct
            assert (came.pushed + came.claimed > 0) == (app not in UNPLANNED), app


def test_round_trips_are_counted_against_no_distance() -> None:
    found = {
        Place(SCRIPTED, "chain", 0.0): Times(off=[1.0], on=[0.5]),
        Place(SCRIPTED, "chain", 100.0): Times(off=[2.0], on=[0.6]),
    }
    assert round_trips(found, Place(SCRIPTED, "chain", 100.0), ON) == pytest.approx([1.0])
    assert round_trips(found, Place(SCRIPTED, "chain", 0.0), ON) is None


def test_parts_of_two_seeds_share_no_beginning() -> None:
    texts = fresh_parts(5, "one") + fresh_parts(5, "two")
    assert len({text[:8] for text in texts}) == 10
    assert fresh_parts(5, "one") == texts[:5]
