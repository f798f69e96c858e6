"""What cells become: metrics, medians over whole rounds, rows of a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from recipes.benchmarks.cells import Cell
from recipes.benchmarks.plan import Asked
from recipes.benchmarks.results import Row, good_rounds, merge, metrics, quantile, read_rows, summarise
from recipes.benchmarks.runs import OtherRun, Run

from .made_cells import FACTS, app, call, cell


def test_quantiles_lie_between_neighbours() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.2) == pytest.approx(1.2)
    assert quantile([7.0], 0.99) == 7.0


def test_a_cell_says_what_its_apps_waited_and_its_servers_computed() -> None:
    one = cell("a", 0, app("x", 2.0, call("1", cached=6)), app("y", 4.0, call("1")))
    found = {name: value for name, (value, _) in metrics(one).items()}
    assert found["app_completion_mean"] == 3.0
    assert found["first_text_p50"] == 0.5
    assert found["executed_tokens"] == 2 * 10 + 2 * 4 - 6
    assert found["throughput"] == 8 / 2.0


def test_apps_of_several_kinds_are_told_apart_and_background_is_not_in_the_mean() -> None:
    one = cell("a", 0, app("x", 2.0, group="chat"), app("y", 4.0, group="job"), app("z", 100.0, group="background"))
    found = metrics(one)
    assert found["app_completion_mean"][0] == 3.0
    assert found["app_completion_mean/chat"][0] == 2.0
    assert found["app_completion_mean/background"][0] == 100.0


def test_only_whole_and_quiet_rounds_count() -> None:
    whole = [cell(lane, 0, app("x", 1.0)) for lane in "ab"]
    half = [cell("a", 1, app("x", 1.0))]
    failed = [cell("a", 2, app("x", 1.0)), cell("b", 2, app("x", 1.0, error="broken"))]
    loud = [cell("a", 3, app("x", 1.0)), cell("b", 3, app("x", 1.0), foreign=0.06)]
    cells = [*whole, *half, *failed, *loud]
    assert [len(found) for found in good_rounds(cells, "ab").values()] == [1]
    assert [len(found) for found in good_rounds(cells, "ab", any_load=True).values()] == [2]


def rows_of(*completions: tuple[float, float]) -> list[Row]:
    cells = []
    for number, (base, this) in enumerate(completions):
        cells += [cell("a", number, app("x", base, call("1"))), cell("b", number, app("x", this, call("1")))]
    return summarise(good_rounds(cells, "ab"), "ab", FACTS)


def find(rows: list[Row], system: str, metric: str) -> Row:
    return next(row for row in rows if (row.system, row.metric) == (system, metric))


def test_lanes_are_compared_with_those_between_them_and_the_first_too() -> None:
    cells = [cell(lane, 0, app("x", seconds)) for lane, seconds in (("a", 6.0), ("b", 4.0), ("c", 2.0))]
    rows = summarise(good_rounds(cells, "abc"), "abc", FACTS)
    assert (find(rows, "c", "speedup").p50, find(rows, "c", "speedup_over_b").p50) == (3.0, 2.0)
    assert not [row for row in rows if row.metric.startswith("speedup_over") and row.system != "c"]


def test_lanes_are_compared_round_by_round_with_the_first() -> None:
    rows = rows_of((4.0, 2.0), (9.0, 3.0), (4.0, 4.0))
    speedup = find(rows, "b", "speedup")
    assert (speedup.p50, speedup.min, speedup.rounds) == (2.0, 1.0, 3)
    assert find(rows, "b", "identical_answers").p50 == 1.0
    assert find(rows, "a", "app_completion_mean").p50 == 4.0
    assert not [row for row in rows if (row.system, row.metric) == ("a", "speedup")]


def test_a_file_keeps_other_runs_and_replaces_the_same(tmp_path: Path) -> None:
    place = tmp_path / "results" / "suite.csv"
    first, second = rows_of((4.0, 2.0)), rows_of((6.0, 2.0))
    merge(first, place)
    assert sorted(read_rows(place), key=lambda row: row.key) == sorted(first, key=lambda row: row.key)
    merge(second, place)
    assert find(read_rows(place), "b", "speedup").p50 == 3.0
    assert len(read_rows(place)) == len(first)


def test_a_trial_with_other_tools_memory_or_server_replaces_no_row_of_a_run_as_usual(tmp_path: Path) -> None:
    place = tmp_path / "suite.csv"
    cells = [cell("a", 0, app("x", 4.0)), cell("b", 0, app("x", 2.0))]

    def scale_of(**asked: object) -> str:
        rows = summarise(good_rounds(cells, "ab"), "ab", FACTS | {"asked": {**FACTS["asked"], **asked}})
        merge(rows, place)
        return rows[0].scale

    usual = Asked(model="m").to_json()
    assert scale_of() == scale_of(**usual) == "tokens 0.25, calls 1"
    assert scale_of(**usual | {"tool_s": 1.0, "kv_gib": 1}) == "tokens 0.25, calls 1, tools 1, kv 1 GiB"
    assert scale_of(against="http://127.0.0.1:9/v1") == "tokens 0.25, calls 1, against http://127.0.0.1:9/v1"
    assert len([row for row in read_rows(place) if row.metric == "speedup"]) == 3


def test_a_run_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    run = Run.open("r", {"model": "m"}, resume=False, under=tmp_path)
    cells = [cell("a", 0, app("x", 1.0, call("1"))), cell("b", 0, app("x", 1.0, error="broken"))]
    for each in cells:
        run.add(each)
    with (run.folder / "cells.jsonl").open("a") as file:
        file.write('{"place": {"workl')  # killed while it wrote
    again = Run.open("r", {"model": "m"}, resume=True, under=tmp_path)
    assert list(again.cells()) == cells
    assert again.facts["hardware"]
    again.add(cells[0])
    assert list(again.cells()) == [*cells, cells[0]]


def test_a_run_is_not_gone_on_with_by_mistake(tmp_path: Path) -> None:
    Run.open("r", {"model": "m"}, resume=False, under=tmp_path)
    with pytest.raises(OtherRun, match="--resume"):
        Run.open("r", {"model": "m"}, resume=False, under=tmp_path)
    with pytest.raises(OtherRun, match="model was 'm', now 'n'"):
        Run.open("r", {"model": "n"}, resume=True, under=tmp_path)


def test_a_run_is_not_gone_on_with_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run.open("r", {"model": "m"}, resume=False, under=tmp_path)
    monkeypatch.setattr("recipes.benchmarks.runs.hardware", lambda: "9 x another")
    with pytest.raises(OtherRun, match=r"on other hardware .*, this is 9 x another"):
        Run.open("r", {"model": "m"}, resume=True, under=tmp_path)
    assert Run.read("r", under=tmp_path).facts["hardware"] != "9 x another"


def test_rows_say_every_commit_and_day_at_which_their_rounds_were_measured() -> None:
    stamps = [{"commit": "def+", "date": "2026-11-21"}, {}, {"commit": "def+", "date": "2026-11-21"}]
    cells = [replace(cell(lane, at, app("x", 1.0)), **stamp) for at, stamp in enumerate(stamps) for lane in "ab"]
    loud = [replace(cell(lane, 3, app("x", 1.0), foreign=0.5), commit="loud") for lane in "ab"]
    rows = summarise(good_rounds([*cells, *loud], "ab"), "ab", FACTS)
    assert {(row.hardware, row.commit, row.date) for row in rows} == {
        ("a machine", "def+ abc", "2026-11-21 2026-11-20")  # what does not say it is as old as the run
    }


def test_a_cell_of_an_old_run_is_read_without_its_commit() -> None:
    old = cell("a", 0, app("x", 1.0)).to_json()
    for name in ("hardware", "commit", "date"):
        del old[name]
    assert Cell.from_json(old) == cell("a", 0, app("x", 1.0))
