"""The benchmark of the server's own cost counts every event, and writes what it found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from recipes.benchmarks.measured import read
from recipes.benchmarks.overhead import main


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processor times come from /proc")
def test_each_cost_is_measured_and_written(tmp_path: Path) -> None:
    few = ["--requests", "4", "--at-once", "2", "--tokens", "8", "--rounds", "1"]
    assert main([*few, "--results", str(tmp_path)]) == 0
    rows = {row["metric"]: row for row in read(tmp_path / "overhead-ours.csv")}
    assert set(rows) == {"request_us", "stream_us", "event_us"}
    assert {row["system"] for row in rows.values()} == {"ours"}
