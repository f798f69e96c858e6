"""The whole harness at a tiny scale: a real server with builtin:tiny, all ten workloads, two lanes, a distance.

What is asserted is structure and the equality of every token; never a time.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("torch")

from recipes.benchmarks.cells import Cell, Place
from recipes.benchmarks.checkpoints import folder
from recipes.benchmarks.clients import Endpoint
from recipes.benchmarks.explanations import explained
from recipes.benchmarks.lanes import LANES, RunningLane
from recipes.benchmarks.plan import Asked, planned
from recipes.benchmarks.recordings import Recordings
from recipes.benchmarks.results import MAIN, good_rounds, read_rows, summarise
from recipes.benchmarks.runs import Run
from recipes.benchmarks.servers import Setting, parrot_server
from recipes.benchmarks.suite import Suite, main
from recipes.benchmarks.tables import table
from recipes.benchmarks.workloads import WORKLOADS

from .made_cells import FACTS, app, call, cell

PLAIN = "s0" if importlib.util.find_spec("langchain_openai") else "ours"
NAMES = ("plain", "ours")


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Of every server here. Answers are recorded ones where there are any."""
    recordings = tmp_path_factory.mktemp("recordings")
    return Setting(checkpoint=folder("builtin:tiny"), context_tokens=8192, kv_gib=1, threads=1, recordings=recordings)


@pytest.fixture(scope="module")
async def lanes(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, RunningLane]]:
    """One server under two names: a second one would only cost time."""
    logs = tmp_path_factory.mktemp("logs")
    async with parrot_server(setting, logs / "server.log") as server:
        assert server.pid is not None
        chosen = {"plain": LANES[PLAIN], "ours": LANES["ours"]}
        yield {name: RunningLane(lane, server, (server.pid,), logs) for name, lane in chosen.items()}


@pytest.fixture
async def paper(setting: Setting, tmp_path: Path) -> AsyncIterator[RunningLane]:
    """The lane of the paper's policies, as the suite starts it."""
    async with parrot_server(setting, tmp_path / "s1.log", options=LANES["s1"].options) as server:
        yield RunningLane(LANES["s1"], server, (), tmp_path)


def suite(place: Path, *, resume: bool = False, lanes: tuple[str, ...] = NAMES) -> Suite:
    asked = Asked(model="builtin:tiny", scale=0.02, calls=0.06, tool_s=0.0005, kv_gib=1, lanes=lanes)
    known = {"model": asked.model, "scale": asked.scale, "calls": asked.calls}
    run = Run.open("tiny", known, resume=resume, under=place)
    # arrivals at a rate that is known: finding the capacity is tested by itself
    run.facts["capacity"] = {f"w0{number} {variant} 0 ms": 80.0 for number, variant in ((5, "poisson"), (7, "mixed"))}
    return Suite(asked, run, rounds=1, any_load=True, console=Console(quiet=True))


@pytest.mark.timeout(400)  # ten workloads: half a minute, and more where others work beside it
async def test_all_workloads_run_in_every_lane_with_equal_answers(
    lanes: dict[str, RunningLane], tmp_path: Path
) -> None:
    measured = suite(tmp_path)
    rows = [*planned(list(WORKLOADS), [0.0], [0.5]), *planned(["w08"], [2.0], [])]
    await measured.measure(rows, lanes)

    cells = list(measured.run.cells())
    assert cells == measured.cells
    assert {cell.place.workload for cell in cells} == set(WORKLOADS)
    assert [cell.errors for cell in cells] == [[]] * (2 * len(rows))
    assert all(cell.server["calls"] > 0 and cell.server["requests"] > 0 for cell in cells)
    assert all(call.output_tokens == call.max_tokens for cell in cells for call in cell.calls)

    found = summarise(measured.good(), NAMES, measured.run.facts)
    equal = {(row.workload, row.system): row.p50 for row in found if row.metric == "identical_answers"}
    assert equal == dict.fromkeys([(name, "ours") for name in WORKLOADS], 1.0)
    assert not [row for row in found if row.metric == "following_calls" and row.p50 > 0]
    assert len([row for row in found if row.metric == MAIN]) == 2 * len(rows)
    phases = [row for row in found if row.metric == "time_decode"]
    assert len(phases) == 2 * len(rows) and all(row.p50 >= 0 for row in phases)
    text = explained(found, NAMES)
    assert text.count("Bound by ") == 2 * len(rows)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(found, NAMES))
    shown = console.export_text()
    assert all(name in shown for name in WORKLOADS)


async def test_the_papers_lane_answers_the_same_and_so_do_llamaindex_apps(
    lanes: dict[str, RunningLane], paper: RunningLane, tmp_path: Path
) -> None:
    pytest.importorskip("llama_index.core")
    measured = suite(tmp_path, lanes=("s1", "ours"))
    rows = planned(["w03", "w06", "w01:llamaindex", "w03:llamaindex"], [0.0], [])
    await measured.measure(rows, {"s1": paper, "ours": lanes["ours"]})
    assert [cell.errors for cell in measured.cells] == [[]] * (2 * len(rows))
    found = summarise(measured.good(), ("s1", "ours"), measured.run.facts)
    assert [row.p50 for row in found if row.metric == "identical_answers"] == [1.0] * len(rows)
    assert not [row for row in found if row.metric == "following_calls" and row.p50 > 0]


async def test_a_run_goes_on_where_it_was_stopped(lanes: dict[str, RunningLane], tmp_path: Path) -> None:
    first = suite(tmp_path)
    await first.measure(planned(["w01"], [0.0], []), lanes)
    again = suite(tmp_path, resume=True)
    await again.measure(planned(["w01", "w03"], [0.0], []), lanes)
    places = [(cell.place.workload, cell.place.round) for cell in again.run.cells()]
    assert sorted(places) == [("w01", 0)] * 2 + [("w03", 0)] * 2


class Near:
    """A lane without a server, for cells that are made by hand."""

    @asynccontextmanager
    async def at(self, rtt_ms: float) -> AsyncIterator[tuple[Endpoint, tuple[int, ...]]]:
        yield Endpoint(base_url="http://127.0.0.1:9/v1", model="m", chat_class="parrot"), ()


async def test_a_resumed_run_says_at_which_commits_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def made(place: Place, *given: object) -> Cell:
        return dataclasses.replace(cell(place.lane, place.round, app("x", 1.0)), place=place)

    monkeypatch.setattr("recipes.benchmarks.suite.run_cell", made)
    for rounds, (commit, day) in enumerate([("abc", "2026-11-20"), ("def", "2026-11-21")], 1):
        monkeypatch.setattr("recipes.benchmarks.runs.commit", lambda commit=commit: commit)
        monkeypatch.setattr("recipes.benchmarks.runs.today", lambda day=day: day)
        measured = suite(tmp_path, resume=rounds > 1)
        measured.rounds = rounds
        await measured.measure(planned(["w01"], [0.0], []), dict.fromkeys(NAMES, Near()))  # type: ignore[arg-type]
    found = summarise(measured.good(), NAMES, measured.run.facts)
    assert {(row.rounds, row.commit, row.date) for row in found} == {(2, "abc def", "2026-11-20 2026-11-21")}
    assert measured.run.facts["commit"] == "abc"  # it was begun there


async def test_recorded_answers_are_given_in_every_lane(
    setting: Setting, lanes: dict[str, RunningLane], tmp_path: Path
) -> None:
    measured = suite(tmp_path)
    measured.asked = dataclasses.replace(measured.asked, scale=0.25)
    assert setting.recordings is not None
    measured.recordings = Recordings(setting.recordings)
    rows = planned(["w10"], [0.0], [])
    await measured.measure(rows, lanes)
    apps = [app for cell in measured.cells for app in cell.apps]
    assert len(apps) == 2
    says = rows[0].build(measured.asked, measured.checkpoint, "round 0.0 None 0").apps[0].says
    for one in apps:
        assert {call.name: call.text for call in one.calls} == says
        draft, rewrite = (set(says[name].split()) for name in ("draft", "rewrite-0"))
        assert len(draft & rewrite) > 0.6 * len(draft)  # a rewrite copies


async def test_what_is_past_its_minutes_is_left_for_later(lanes: dict[str, RunningLane], tmp_path: Path) -> None:
    measured = suite(tmp_path)
    measured.deadline = 0.0
    await measured.measure(planned(["w01"], [0.0], []), lanes)
    assert list(measured.run.cells()) == []


async def test_pictures_are_drawn_of_what_was_measured(lanes: dict[str, RunningLane], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from recipes.benchmarks.plots import draw

    measured = suite(tmp_path)
    await measured.measure(planned(["w03"], [0.0], []), lanes)
    rows = summarise(measured.good(), NAMES, measured.run.facts)
    drawn = draw(measured.cells, rows, NAMES, tmp_path / "pictures")
    assert [path.name for path in drawn] == [
        "completion-builtin-tiny-0.02.svg",
        "distribution-builtin-tiny-0.02.svg",
        "timeline-w03-builtin-tiny-0.02.svg",
    ]
    assert all("<svg" in path.read_text() for path in drawn)


def test_a_workload_that_is_not_there_says_which_are() -> None:
    with pytest.raises(SystemExit, match=r"no workload 'w99'.*w01, w02"):
        planned(["w99"], [0.0], [])
    with pytest.raises(SystemExit, match=r"no variant 'huge' of w01.*part2048-out50"):
        planned(["w01:huge"], [0.0], [])


def test_a_load_makes_rows_only_where_apps_arrive_by_themselves() -> None:
    rows = planned(["w01", "w05", "w02:background"], [0.0, 50.0], [0.5, 0.8])
    assert [row.load for row in rows if row.workload.name == "w01"] == [None, None]
    assert [(row.load, row.rtt_ms) for row in rows if row.workload.name == "w05"] == [
        (0.5, 0.0),
        (0.5, 50.0),
        (0.8, 0.0),
        (0.8, 50.0),
    ]
    assert len([row for row in rows if row.workload.name == "w02"]) == 4


def test_results_that_are_not_there_are_none(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.csv") == []


def test_a_report_is_made_of_the_cells_of_a_run_and_keeps_to_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    asked = Asked(model="builtin:tiny", lanes=("ours", "no-slack"))
    run = Run.open("r", asked.to_json(), resume=False, under=tmp_path)
    for lane, completion_s in (("ours", 2.0), ("no-slack", 4.0)):
        run.add(cell(lane, 0, app("x", completion_s, call("1"))))
    monkeypatch.setattr(Run, "read", lambda name: run)
    monkeypatch.setattr("recipes.benchmarks.suite.RESULTS", tmp_path / "results")
    assert main(["--report", "--name", "r", "--profile"]) == 0
    written = tmp_path / "results" / "ours"
    assert [row.p50 for row in read_rows(written / "suite.csv") if row.metric == "speedup"] == [0.5]
    assert "no-slack: 4 s (0.50x)" in (written / "profile.md").read_text()
    assert "| W01 chain (refine) summary (v) | 50 | 2 (2) | 4 (4) 0.50x |" in (written / "table.md").read_text()
    assert (written / "timeline-w01-builtin-tiny-0.25.svg").exists()
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["ours"]


def test_rounds_in_which_others_worked_are_in_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    run = Run.open("r", Asked(model="builtin:tiny", lanes=NAMES).to_json(), resume=False, under=tmp_path)
    for number, foreign in enumerate([0.0, 0.5]):
        for lane in NAMES:
            run.add(cell(lane, number, app("x", 2.0), foreign=foreign))
    monkeypatch.setattr(Run, "read", lambda name: run)
    monkeypatch.setattr("recipes.benchmarks.suite.RESULTS", tmp_path / "results")
    drawn: list[Cell] = []
    monkeypatch.setattr("recipes.benchmarks.plots.draw", lambda cells, *given: drawn.extend(cells) or [])
    assert main(["--report", "--name", "r"]) == 0
    assert [(cell.place.lane, cell.place.round) for cell in drawn] == [("plain", 0), ("ours", 0)]


def test_each_variant_and_load_is_a_panel_of_its_own_in_the_distribution(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from recipes.benchmarks.plots import draw

    made = [cell("ours", 0, app("x", 2.0)) for _ in range(3)]
    for one, (variant, load) in zip(made, [("all", None), ("few", 0.5), ("few", 0.8)], strict=True):
        one.place = dataclasses.replace(one.place, variant=variant, load=load)
    facts = FACTS | {"asked": FACTS["asked"] | {"kv_gib": 1}}
    rows = summarise(good_rounds(made, ["ours"]), ["ours"], facts)
    picture = next(path for path in draw(made, rows, ["ours"], tmp_path) if path.stem == "distribution-m-0.25-kv-1-GiB")
    titles = [line.strip() for line in picture.read_text().splitlines() if "<!-- w01" in line]
    assert titles == [f"<!-- w01 {row}, 50 ms -->" for row in ("all", "few, load 0.5", "few, load 0.8")]


def test_a_report_of_a_run_that_is_not_there_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--report", "--name", "no-such-run"]) == 1
    assert "there is no run 'no-such-run'" in capsys.readouterr().err
