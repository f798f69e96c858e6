"""Tables: the mean that caps each ratio, and README between its markers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from recipes.benchmarks.results import Row
from recipes.benchmarks.tables import geometric_mean, markdown, means, write_readme


def row(workload: str, system: str, metric: str, value: float, rtt_ms: float = 0.0) -> Row:
    return Row(
        workload=workload,
        variant="v",
        load="",
        rtt_ms=rtt_ms,
        model="m",
        scale="tokens 0.25, calls 1",
        system=system,
        metric=metric,
        unit="",
        p50=value,
        p20=value,
        p80=value,
        min=value,
        rounds=5,
        hardware="a machine",
        versions="1",
        commit="abc",
        date="today",
    )


def test_each_ratio_counts_at_most_four_and_each_workload_once() -> None:
    rows = [row("w01", "b", "speedup", 100.0), row("w02", "b", "speedup", 1.0), row("w02", "b", "speedup", 1.0, 50.0)]
    assert geometric_mean(rows, "b") == pytest.approx(2.0)
    assert geometric_mean(rows, "b", 50.0) == pytest.approx(1.0)
    assert geometric_mean(rows, "c") is None


def test_the_table_says_what_where_and_how_equal() -> None:
    rows = [
        row("w01", "a", "app_completion_mean", 2.0),
        row("w01", "b", "app_completion_mean", 1.0),
        row("w01", "b", "speedup", 2.0),
        row("w01", "b", "identical_answers", 0.995),
    ]
    text = markdown(rows, ["a", "b"])
    assert "| W01 chain (refine) summary (v) | 0 | 2 (2) | 1 (1) 2.00x | b 99.5% |" in text
    assert "a machine" in text and "abc (today)" in text
    assert "| W01 | b over a | 2.00x |" in text


def test_the_table_says_how_far_the_ratios_of_the_rounds_lie_apart() -> None:
    spread = replace(row("w01", "b", "speedup", 2.0), p20=1.5, p80=2.25)
    text = markdown([row("w01", "b", "app_completion_mean", 1.0), spread], ["a", "b"])
    assert "1 (1) 2.00x (1.50-2.25)" in text


def test_what_was_run_otherwise_than_usual_has_a_table_and_a_mean_of_its_own() -> None:
    usual = [row("w01", "a", "app_completion_mean", 2.0), row("w01", "b", "speedup", 2.0)]
    trial = [replace(one, p50=4.0, scale="tokens 0.25, calls 0.5, tools 1, kv 1 GiB") for one in usual]
    text = markdown(usual + trial, ["a", "b"])
    assert "| W01 | b over a | 2.00x |" in text and "| W01 | b over a | 4.00x |" in text
    assert "m, 0.25 of the paper's tokens; mean" in text
    assert "m, 0.25 of the paper's tokens, tools 1, kv 1 GiB; mean" in text
    assert "| W01 chain (refine) summary (v, 0.5 of the calls, tools 1, kv 1 GiB) | 0 | 4 (2) | - |" in text


def test_readme_is_written_between_its_markers_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench:suite -->\nold\n<!-- /bench:suite -->\nafter\n")
    assert write_readme(readme, "new")
    assert readme.read_text() == "before\n<!-- bench:suite -->\nnew\n<!-- /bench:suite -->\nafter\n"
    readme.write_text("nothing here\n")
    assert not write_readme(readme, "new")
    assert readme.read_text() == "nothing here\n"


def test_means_are_told_over_the_lanes_between_as_well() -> None:
    rows = [
        row("w01", "a", "app_completion_mean", 6.0),
        row("w01", "s1", "app_completion_mean", 4.0),
        row("w01", "ours", "app_completion_mean", 2.0),
        row("w01", "s1", "speedup", 1.5),
        row("w01", "ours", "speedup", 3.0),
        row("w01", "ours", "speedup_over_s1", 2.0),
    ]
    text = markdown(rows, ["a", "s1", "ours"])
    lines = ["| W01 | s1 over a | 1.50x |", "| W01 | ours over a | 3.00x |", "| W01 | ours over s1 | 2.00x |"]
    assert "\n".join(lines) in text
    assert "\n".join(lines) in means(rows, ["a", "s1", "ours"]), "and README has no more than them"


def test_distances_are_compared_over_the_same_workloads() -> None:
    rows = [row("w01", "b", "speedup", 1.0, rtt_ms) for rtt_ms in (0.0, 50.0, 240.0)]
    rows += [row("w02", "b", "speedup", 4.0, rtt_ms) for rtt_ms in (0.0, 50.0)]
    lines = ["| W01, W02 | b over a | 2.00x | 2.00x | - |", "| W01 | b over a | 1.00x | 1.00x | 1.00x |"]
    assert "\n".join(lines) in means(rows, ["a", "b"])
