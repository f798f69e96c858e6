"""Measuring engines: token ids in, the same tokens out over HTTP and from the port, and sums that add up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")

from rich.console import Console
from rich.progress import Progress

from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine
from recipes.benchmarks.checkpoints import facts, folder
from recipes.benchmarks.engine import SAMPLES, Bench, Lane, Wanted, main
from recipes.benchmarks.engine_cases import CASES, MOMENTS, Case, Ceilings, Measured
from recipes.benchmarks.engine_samples import Sample, finished, memory_rows, rows, table
from recipes.benchmarks.results import read_rows
from recipes.benchmarks.runs import Run
from recipes.benchmarks.token_streams import EngineStreams, HttpStreams, TokenStream

from ...server.live import live
from .conftest import scripted


async def test_an_engine_says_the_same_over_http_and_from_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.benchmarks.token_streams.MODEL", "org/scripted")
    prompt = [ord(char) for char in "a prompt of some words"]
    engine = ScriptedEngine(scripted, EngineInfo(name="e", model="m", context_tokens=4096))
    direct = await EngineStreams(engine).run(prompt, 100)
    async with live(scripted) as server:
        far = await HttpStreams(f"{server.url}/v1").run(prompt, 100)
    assert len(direct.tokens) == 100
    assert far.tokens == direct.tokens
    for stream in (direct, far):
        assert sum(count for _, count in stream.arrivals) == 100
        moments = [moment for moment, _ in stream.arrivals]
        assert moments == sorted(moments) and moments[0] >= stream.sent


async def test_a_server_that_refuses_is_an_error_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.benchmarks.token_streams.MODEL", "no such model")
    async with live(scripted) as server:
        with pytest.raises(RuntimeError, match="no such model"):
            await HttpStreams(f"{server.url}/v1").run([65], 4)


class Recorded:
    """Streams that were measured before: what is computed from them is known."""

    def __init__(self, *streams: TokenStream) -> None:
        self.left = list(streams)
        self.asked: list[tuple[int, int]] = []
        self.prompts: list[tuple[int, ...]] = []

    async def run(self, prompt: Sequence[int], max_tokens: int) -> TokenStream:
        self.asked.append((len(prompt), max_tokens))
        self.prompts.append(tuple(prompt))
        return self.left.pop(0)


async def test_decode_counts_only_while_all_streams_draw() -> None:
    early = TokenStream(0.0, tuple((1.0 + step, 1) for step in range(6)), (1,) * 6)  # 1.0 … 6.0
    late = TokenStream(0.0, tuple((3.0 + step, 2) for step in range(6)), (1,) * 12)  # 3.0 … 8.0
    measured = await Case(kind="decode", size=2).run(Recorded(early, late), "seed", 1000)
    assert measured.value == (3 * 1 + 3 * 2) / (6.0 - 3.0)


def first_after(seconds: float) -> TokenStream:
    return TokenStream(10.0, ((10.0 + seconds, 1),), (7,))


async def test_a_repeated_prompt_is_timed_from_the_second_time_on() -> None:
    streams = Recorded(first_after(5.0), first_after(3.0), *[first_after(0.5)] * 8)
    measured = await Case(kind="repeat", size=2048).run(streams, "seed", 1000)
    assert (measured.value, measured.unit) == (0.5, "s")
    assert streams.asked == [(2048, 1)] * 10 and len(set(streams.prompts)) == 1


async def test_what_takes_moments_is_timed_with_several_fresh_prompts() -> None:
    streams = Recorded(first_after(3.0), *[first_after(0.5)] * 8)
    measured = await Case(kind="first", size=64).run(streams, "seed", 1000)
    assert measured.value == 0.5 and measured.tokens == ((7,),) * 9
    assert streams.asked == [(64, 1)] * 9 and len(set(streams.prompts)) == 9


def test_the_roofline_of_decode_is_the_bytes_of_one_step() -> None:
    known = facts(folder("builtin:random"))
    weights = 6 * 256 * (2 * 256 + 2 * 128 + 3 * 704) + 4096 * 256
    ceilings = Ceilings(bytes_per_s=1e9, flops=1e18)
    case = Case(kind="decode", size=1)
    step_s = (4 * weights + 128 * known["kv_bytes_per_token"]) / 1e9
    assert ceilings.share(case, 1 / step_s, known) == pytest.approx(1.0)
    assert ceilings.share(case, 0.5 / step_s, known) == pytest.approx(0.5)
    assert ceilings.share(Case(kind="first", size=64), 1.0, known) is None


def test_the_cases_are_those_of_the_goals() -> None:
    names = {case.name for case in CASES}
    assert {"prefill-512", "prefill-2048", "prefill-8192", "decode-1", "decode-16", "decode-64"} <= names


# ---- a run of cases --------------------------------------------------------------------------------------


class Counting:
    """Streams that say what they are asked, and count how often."""

    def __init__(self) -> None:
        self.asked = 0

    async def run(self, prompt: Sequence[int], max_tokens: int) -> TokenStream:
        self.asked += 1
        tokens = tuple(prompt[:1]) * max_tokens
        return TokenStream(0.0, tuple((1.0 + at, 1) for at in range(max_tokens)), tokens)


CHOSEN = [Case(kind="first", size=64), Case(kind="decode", size=4)]
STAMP = ("hardware", "commit", "date")
ASKED = {"model": "builtin:random", "lanes": ["a", "b"], "kv_gib": 1, "threads": 1}


def wanted(rounds: int = 2, **fields: Any) -> Wanted:
    return Wanted(cases=CHOSEN, rounds=rounds, vocabulary=4096, any_load=True, **fields)


def bench(place: Path, want: Wanted, *, resume: bool = False) -> Bench:
    return Bench(Run.open("engine", ASKED, resume=resume, under=place), want)


async def measured(bench: Bench, *streams: Counting) -> None:
    lanes = [Lane(name, one, os.getpid()) for name, one in zip("ab", streams, strict=True)]
    with Progress(console=Console(quiet=True)) as progress:
        await bench.measure(lanes, progress)


async def test_what_is_measured_of_an_engine_is_not_measured_again(tmp_path: Path) -> None:
    first, streams = bench(tmp_path, wanted()), (Counting(), Counting())
    assert first.left == {"first-64": 2, "decode-4": 2}
    await measured(first, *streams)
    assert first.left == {}
    assert [one.asked for one in streams] == [3 * MOMENTS + 3 * 4] * 2  # a warm-up and two rounds of each
    again = bench(tmp_path, wanted(3), resume=True)
    assert again.samples == first.samples and again.left == {"first-64": 1, "decode-4": 1}
    await measured(again, *streams)
    assert [(sample.case, sample.round) for sample in again.samples[4:]] == [("first-64", 2), ("decode-4", 2)]
    assert set(again.run.facts["memory"]) == {"a", "b"} and min(again.run.facts["memory"].values()) > 0


async def test_a_run_of_engines_that_ends_early_keeps_what_is_finished(tmp_path: Path) -> None:
    class Interrupted(Counting):
        async def run(self, prompt: Sequence[int], max_tokens: int) -> TokenStream:
            if self.asked == 3 * MOMENTS + 4 + 2:  # in the first round of the second case
                raise RuntimeError("it is gone")
            return await super().run(prompt, max_tokens)

    run = bench(tmp_path, wanted())
    with pytest.raises(RuntimeError, match="it is gone"):
        await measured(run, Counting(), Interrupted())
    again = bench(tmp_path, wanted(), resume=True)
    assert again.left == {"decode-4": 2}
    assert set(finished(again.counted, 2)) == {"first-64"}


async def test_no_round_of_engines_begins_when_the_minutes_are_over(tmp_path: Path) -> None:
    run, streams = bench(tmp_path, wanted(until=0.0)), (Counting(), Counting())
    await measured(run, *streams)
    assert run.samples == [] and [one.asked for one in streams] == [0, 0]


async def test_rounds_that_were_not_quiet_count_only_where_asked(tmp_path: Path) -> None:
    run = bench(tmp_path, wanted())
    await measured(run, Counting(), Counting())
    loud = [replace(sample, is_quiet=False) for sample in run.samples]
    strict = Bench(run.run, replace(run.wanted, any_load=False))
    strict.samples = [*loud[:1], *(replace(sample, is_quiet=True) for sample in loud[1:])]
    assert strict.left == {"first-64": 1}


async def test_a_resumed_run_of_engines_says_at_which_commits_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rounds, commit in enumerate(["abc", "def"], 1):
        monkeypatch.setattr("recipes.benchmarks.runs.commit", lambda commit=commit: commit)
        run = bench(tmp_path, wanted(rounds), resume=rounds > 1)
        await measured(run, Counting(), Counting())
    old = Sample.from_json({name: value for name, value in run.samples[0].to_json().items() if name not in STAMP})
    assert old.commit == ""  # a line of an old run
    known = {"model": "m", "scale": "1 threads", "hardware": "h", "versions": "v", "commit": "c", "date": "d"}
    best = Ceilings(bytes_per_s=1e9, flops=1e12)
    made = rows(finished([old, *run.samples], 2), best, facts(folder("builtin:random")), known)
    assert {row.commit for row in made if row.variant == "first-64"} == {"c abc def"}
    assert {row.commit for row in made if row.variant == "decode-4"} == {"abc def"}


@pytest.mark.parametrize(("names", "beside"), [("vllm,ours", "."), ("engine,ours", "engine")])
def test_what_is_compared_with_another_lane_than_vllm_has_a_file_of_its_own(
    names: str, beside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ASKED | {"lanes": names.split(","), "threads": 1}
    run = Run.open("engine", asked, resume=False, under=tmp_path)
    run.facts.update({"ceilings": {"bytes_per_s": 1e9, "flops": 1e12}, "memory": {}})
    said = {name: Measured(value=1.0, unit="s", tokens=((7,),)) for name in asked["lanes"]}
    run.append(SAMPLES, Sample(case="first-64", round=0, is_quiet=True, measured=said).to_json())
    monkeypatch.setattr(Run, "open", lambda *given, **more: run)
    monkeypatch.setattr("recipes.benchmarks.engine.RESULTS", tmp_path / "results")
    options = ["--model", "builtin:random", "--cases", "first-64", "--rounds", "1", "--lanes", names]
    assert main(options) == 0
    (written,) = (tmp_path / "results").rglob("*.csv")
    assert written == tmp_path / "results" / beside / "engine.csv"
    assert [row.system for row in read_rows(written) if row.metric == "speedup"] == ["ours"]


async def test_rows_of_engines_compare_the_lanes_round_by_round(tmp_path: Path) -> None:
    run = bench(tmp_path, wanted())
    await measured(run, Counting(), Counting())
    known = {"model": "m", "scale": "1 threads", "hardware": "h", "versions": "v", "commit": "c", "date": "d"}
    best = Ceilings(bytes_per_s=1e9, flops=1e12)
    made = rows(finished(run.samples, 2), best, facts(folder("builtin:random")), known)
    found = {(row.variant, row.system, row.metric): row for row in [*made, *memory_rows({"a": 1 << 30}, known)]}
    assert found["decode-4", "b", "speedup"].p50 == 1.0
    assert found["decode-4", "b", "identical_answers"].p50 == 1.0
    assert found["first-64", "a", "measured"].unit == "s"
    assert ("first-64", "a", "roofline") not in found and found["decode-4", "a", "roofline"].rounds == 2
    assert found["memory", "a", "measured"].p50 == 1.0
    assert table(list(found.values()), ["a", "b"]).row_count == 3
