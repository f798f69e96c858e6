"""The benchmark of the server's own cost counts every event, and writes what it found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from recipes.benchmarks.measured import read
from recipes.benchmarks.overhead import main

from ..terminating import is_running, terminated

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")


@linux
def test_its_server_ends_with_it_when_it_is_terminated() -> None:
    program = """
import time
from recipes.benchmarks.overhead import scripted_server
with scripted_server() as (url, pid):
    print(pid, flush=True)
    while True:
        time.sleep(0.05)
"""
    with terminated(program, Path(__file__).parents[3]) as (code, children):
        assert code == 143
        assert not [child for child in children if is_running(child)]


@linux
def test_each_cost_is_measured_and_written(tmp_path: Path) -> None:
    few = ["--requests", "4", "--at-once", "2", "--tokens", "8", "--rounds", "1"]
    for name in ("ours", "another", "ours"):
        assert main([*few, "--name", name, "--write", "--results", str(tmp_path)]) == 0
    rows = list(read(tmp_path / "overhead.csv"))
    costs = ["request_us", "stream_us", "event_us", "token_us"]
    assert [(row["system"], row["metric"]) for row in rows] == [
        (system, cost) for system in ("another", "ours") for cost in costs
    ]
    values = {row["metric"]: float(row["p50"]) for row in rows if row["system"] == "ours"}
    assert values["event_us"] == values["token_us"]  # an event for each
