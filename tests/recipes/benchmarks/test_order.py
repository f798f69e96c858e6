"""The order of calls, as the study in simulated time shows it: the same apps under each policy."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from recipes.benchmarks.measured import read
from recipes.benchmarks.order import MIXES, main, times


def mean_s(found: dict[str, list[float]]) -> float:
    return statistics.mean(time_s for some in found.values() for time_s in some)


def test_the_same_apps_take_the_same_times_again() -> None:
    first, again = (times("all kinds", "all", 0.9, apps=8, seed=1) for _ in range(2))
    assert first == again and {kind: len(some) for kind, some in first.items()} == dict.fromkeys(MIXES["all kinds"], 2)


def test_the_only_call_of_an_app_is_not_kept_waiting_by_the_apps_that_began_before_it() -> None:
    late, early = (times("chats and jobs", policy, 0.95, apps=60, seed=2) for policy in ("no-newcomers", "all"))
    assert statistics.mean(early["chat"]) < 0.8 * statistics.mean(late["chat"]) and mean_s(early) < mean_s(late)


def test_chains_are_done_sooner_where_the_app_that_began_first_goes_first() -> None:
    by_call, by_app = (times("chains", policy, 0.95, apps=30, seed=1) for policy in ("no-app-order", "all"))
    assert mean_s(by_app) < mean_s(by_call)


def test_what_was_simulated_is_kept_with_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["--mixes", "chats and agents", "--policies", "all", "--loads", "0.5", "--apps", "4", "--seeds", "1"]
    assert main([*said, "--write", "--results", str(tmp_path)]) == 0
    rows = list(read(tmp_path / "order.csv"))
    assert {row["metric"] for row in rows} >= {"mean", "p99", "chat, mean", "agent, p95"}
    assert "recipes.benchmarks.order" in (tmp_path / "order.csv").read_text().splitlines()[0]
    assert "chats and agents" in capsys.readouterr().out
