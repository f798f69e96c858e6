"""The benchmark of round trips, small: real server, real proxy, scripted engine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from recipes.benchmarks.measured import read
from recipes.benchmarks.round_trip_apps import APPS
from recipes.benchmarks.round_trips import HAS_PROC, ON, SCRIPTED, Place, Times, fresh_parts, main, round_trips


def test_it_measures_both_lanes_of_both_apps_and_writes_them_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--rtt-ms", "0", "20", "--rounds", "1", "--calls", "3", "--engines", "scripted"]
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    assert "0 planned calls in vain" in capsys.readouterr().out
    path = tmp_path / "round_trips.csv"
    if importlib.util.find_spec("matplotlib") is not None:
        assert "planner on" in (tmp_path / "round_trips-scripted.svg").read_text()
    assert path.read_text().startswith("# python -m recipes.benchmarks.round_trips --rtt-ms 0 20 ")
    rows = {(row["workload"], row["system"], row["metric"]): float(row["p50"]) for row in read(path)}
    of_all = {"completion", "speedup"} | ({"foreign_cpu_share"} if HAS_PROC else set())
    assert {metric for _, _, metric in rows} == of_all | {"round_trips", "pushed", "claimed", "direct"}
    for app in APPS:
        assert rows[f"{app} of 3 calls, 0 ms round trip, scripted engine", "planner on", "completion"] > 0
    far = "chain of 3 calls, 20 ms round trip, scripted engine"
    assert [rows[far, "planner off", word] for word in ("pushed", "claimed", "direct")] == [0, 0, 3]
    assert [rows[far, "planner on", word] for word in ("pushed", "claimed", "direct")] == [3, 0, 0]
    if "LlamaIndex refine" in APPS:
        refined = "LlamaIndex refine of 3 calls, 20 ms round trip, scripted engine"
        assert [rows[refined, "planner on", word] for word in ("pushed", "claimed", "direct")] == [3, 0, 0]
    assert rows[far, "planner off", "completion"] >= 3 * 0.02
    assert rows[far, "planner on", "completion"] >= 0.02
    assert {(far, "planner on", "speedup"), (far, "planner on", "round_trips")} <= rows.keys()


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
