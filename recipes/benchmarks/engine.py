"""`parrot bench engine`: our engine beside vLLM on one checkpoint, with nothing known of any app.

Prefill, decode at 1 to 64 streams, time to the first token, memory, and how near to the machine's own limits. Three
lanes: vLLM over HTTP, `parrot serve` over HTTP, and our engine's process straight from its port.

The invariants: the lanes take turns within each round and get the same token ids, and in fp32 their answers are
compared token by token; stopped at any moment it has lost at most one round, shows the cases that are finished, and
goes on with --resume.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from parrot_compat.core.engines.process import ProcessEngine

from .checkpoints import facts, folder
from .engine_cases import CASES, Case, Ceilings
from .engine_samples import Sample, finished, memory_rows, rows, table
from .processor_time import MOST_FOREIGN, Stopwatch, settled
from .results import merge, origin
from .runs import RESULTS, OtherRun, Run, versions
from .servers import ROOT, ServerFailed, Setting, parrot_server, stop_on_sigterm, vllm_server
from .token_streams import EngineStreams, HttpStreams, Streams

__all__ = ["Bench", "Lane", "Wanted", "main"]

LANES = ("vllm", "ours", "engine")
MOST_ATTEMPTS = 3
SAMPLES = "samples.jsonl"


@dataclass(frozen=True, slots=True)
class Lane:
    name: str
    streams: Streams
    pid: int
    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    cases: Sequence[Case]
    rounds: int
    vocabulary: int
    any_load: bool = False
    """Rounds in which others used the machine count too."""
    until: float = float("inf")
    """No round begins after this, on the clock of `time.monotonic`."""


# ---- lanes -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(names: Sequence[str], setting: Setting, logs: Path) -> AsyncIterator[list[Lane]]:
    async with AsyncExitStack() as stack:
        lanes = []
        for name in names:
            if name == "engine":
                lanes.append(await stack.enter_async_context(_own_engine(setting)))
                continue
            launch = vllm_server if name == "vllm" else parrot_server
            server = await stack.enter_async_context(launch(setting, logs / f"{name}.log"))
            assert server.pid is not None
            lanes.append(Lane(name, HttpStreams(server.base_url), server.pid, server.notes.get("vllm")))
        yield lanes


@asynccontextmanager
async def _own_engine(setting: Setting) -> AsyncIterator[Lane]:
    preloads = [f"{name}={value}" for name, value in setting.environment().items() if name.startswith("LD_")]
    command = ["env", *preloads, sys.executable, "-m", "parrot_compat.gpu"]
    hello = {"model": str(setting.checkpoint), "name": "bench", "dtype": setting.dtype, "threads": setting.threads}
    hello |= {"max_model_len": setting.context_tokens, "kv_tokens": setting.kv_tokens}
    engine = ProcessEngine(command, hello)
    await engine.start()
    try:
        assert engine.pid is not None
        yield Lane("engine", EngineStreams(engine), engine.pid)
    finally:
        await engine.close()


# ---- measuring ---------------------------------------------------------------------------------------------


class Bench:
    """One run: what is wanted, and what of it is there. `measure` takes the rest."""

    def __init__(self, run: Run, wanted: Wanted) -> None:
        self.run, self.wanted = run, wanted
        self.samples = [Sample.from_json(line) for line in run.lines(SAMPLES)]

    @property
    def counted(self) -> list[Sample]:
        """In the order in which they were measured."""
        return [sample for sample in self.samples if sample.is_quiet or self.wanted.any_load]

    def done(self, case: Case) -> int:
        """Rounds of it that count."""
        return sum(sample.case == case.name for sample in self.counted)

    @property
    def left(self) -> dict[str, int]:
        """Rounds that are missing, by case."""
        missing = {case.name: self.wanted.rounds - self.done(case) for case in self.wanted.cases}
        return {case: rounds for case, rounds in missing.items() if rounds > 0}

    async def measure(self, lanes: Sequence[Lane], progress: Progress) -> None:
        turns = self.wanted.rounds * len(lanes)
        bars = {case: progress.add_task(case.name, total=turns) for case in self.wanted.cases}
        for case, bar in bars.items():
            progress.update(bar, completed=self.done(case) * len(lanes))
        for case, bar in bars.items():
            await self._case(case, lanes, progress, bar)

    async def _case(self, case: Case, lanes: Sequence[Lane], progress: Progress, bar: TaskID) -> None:
        missing = self.wanted.rounds - self.done(case)
        if missing <= 0 or time.monotonic() > self.wanted.until:
            return
        for lane in lanes:
            progress.update(bar, description=f"{case.name} warm-up: {lane.name}")
            await case.run(lane.streams, "warm-up", self.wanted.vocabulary)
        first = max((sample.round for sample in self.samples if sample.case == case.name), default=-1) + 1
        for number in range(first, first + MOST_ATTEMPTS * missing):
            if self.done(case) >= self.wanted.rounds or time.monotonic() > self.wanted.until:
                break
            progress.update(bar, completed=self.done(case) * len(lanes))
            sample = await self._round(case, number, lanes, progress, bar)
            self.samples.append(sample)
            self.run.append(SAMPLES, sample.to_json())
            self._look_at_memory(lanes)
        completed = self.done(case) * len(lanes)
        progress.update(bar, description=case.name, completed=completed)
        last = next((sample for sample in reversed(self.samples) if sample.case == case.name), None)
        if last is not None:
            said = ", ".join(f"{lane} {one.value:,.4g} {one.unit}" for lane, one in last.measured.items())
            progress.console.print(f"{case.name}: {self.done(case)} rounds; the last {said}", highlight=False)

    async def _round(self, case: Case, number: int, lanes: Sequence[Lane], progress: Progress, bar: TaskID) -> Sample:
        """Every lane once, another one first each time."""
        turn = number % len(lanes)
        pids = [lane.pid for lane in lanes]
        watch = Stopwatch(pids)
        taken = {}
        for lane in [*lanes[turn:], *lanes[:turn]]:
            progress.update(bar, description=f"{case.name} round {number}: {lane.name}")
            await settled(pids)
            taken[lane.name] = await case.run(lane.streams, f"round {number}", self.wanted.vocabulary)
            progress.advance(bar)
        is_quiet = watch.read().foreign_share <= MOST_FOREIGN
        measured = {lane.name: taken[lane.name] for lane in lanes}
        return Sample(case=case.name, round=number, is_quiet=is_quiet, measured=measured, **self.run.stamp())

    def _look_at_memory(self, lanes: Sequence[Lane]) -> None:
        held = self.run.facts.setdefault("memory", {})
        held |= {lane.name: max(held.get(lane.name, 0), memory_bytes(lane.pid)) for lane in lanes}
        self.run.save()


def ceilings(setting: Setting) -> Ceilings:
    command = [sys.executable, "-m", "recipes.benchmarks.ceilings", "--dtype", setting.dtype]
    command += ["--threads", str(setting.threads), "--device", "cuda" if setting.has_gpu else "cpu"]
    environment = setting.environment() | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return Ceilings(**json.loads(said.strip().splitlines()[-1]))


def memory_bytes(pid: int) -> int:
    """Of a process and all it started; what several share is counted once (its share in each)."""
    total = 0
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        total += sum(memory_bytes(int(each)) for each in child.read_text().split())
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return total + next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))


# ---- the command -------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    console = Console(stderr=True)
    checkpoint = folder(options.model)
    known = facts(checkpoint)
    context = known["max_position_embeddings"]
    setting = Setting(checkpoint=checkpoint, context_tokens=context, kv_gib=options.kv_gib, threads=options.threads)
    chosen, names = set(options.cases.split(",")), options.lanes.split(",")
    if unknown := [*(chosen - {case.name for case in CASES}), *(set(names) - set(LANES))]:
        console.print(f"no such case or lane: {', '.join(sorted(unknown))}", style="red")
        return 2
    wanted = Wanted(
        cases=[case for case in CASES if case.name in chosen and case.context <= context],
        rounds=options.rounds,
        vocabulary=known["vocab_size"],
        any_load=options.any_load,
        until=float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes,
    )
    name = options.name or f"engine-{Path(options.model).name}-{options.threads}".replace(":", "-")
    asked = {"model": options.model, "lanes": names, "kv_gib": options.kv_gib, "threads": options.threads}
    code = 0
    try:
        bench = Bench(Run.open(name, asked, resume=options.resume), wanted)
        if bench.left:
            asyncio.run(_run(bench, setting, console))
    except (OtherRun, ServerFailed) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = 130
    if bench.left:
        missing = ", ".join(f"{case} ({rounds} rounds)" for case, rounds in bench.left.items())
        console.print(f"not finished: {missing}; --resume goes on with {name}", style="yellow", highlight=False)
    _show(bench, keep=not options.any_load)
    return code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="parrot bench engine", description="Our engine beside vLLM.")
    named = parser.add_argument
    named("--model", default="l25-fp32", help="l25-fp32, l25-bf16, q125-fp32, q125-bf16, or a folder")
    named("--lanes", default=",".join(LANES), help="the first is the baseline")
    named("--cases", default=",".join(case.name for case in CASES))
    named("--rounds", type=int, default=5)
    named("--kv-gib", type=int, default=2)
    named("--threads", type=int, default=os.cpu_count() or 1)
    named("--name", help="of the run (default: made of model and threads)")
    named("--resume", action="store_true", help="go on with the run of this name: what was measured is not again")
    named("--minutes", type=float, help="begin no further round after this long")
    named("--any-load", action="store_true", help="count rounds in which others used the machine; a trial")
    return parser.parse_args(argv)


async def _run(bench: Bench, setting: Setting, console: Console) -> None:
    stop_on_sigterm()
    run, names = bench.run, bench.run.facts["asked"]["lanes"]
    with console.status("measuring what the machine can do"):
        best, before = await asyncio.to_thread(ceilings, setting), run.facts.get("ceilings", {})
    # a ceiling is the best of all tries, those of earlier parts too
    run.facts["ceilings"] = {name: max(value, before.get(name, 0.0)) for name, value in asdict(best).items()}
    async with AsyncExitStack() as stack:
        with console.status(f"starting {', '.join(names)}"):
            lanes = await stack.enter_async_context(running(names, setting, run.folder))
        run.facts["versions"] = versions([lane.version for lane in lanes])
        run.save()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console, refresh_per_second=2) as progress:
            await bench.measure(lanes, progress)


def _show(bench: Bench, *, keep: bool) -> None:
    """The table of the cases that are finished, and their rows in the CSV file where they are results."""
    facts_of_run, found = bench.run.facts, finished(bench.counted, bench.wanted.rounds)
    if not found:
        return
    asked, best = facts_of_run["asked"], Ceilings(**facts_of_run["ceilings"])
    known = {"model": asked["model"], "scale": f"{asked['threads']} threads"}
    known |= {name: facts_of_run[name] for name in ("hardware", "versions", "commit", "date")}
    made = rows(found, best, facts(folder(asked["model"])), known)
    made += memory_rows(facts_of_run["memory"], known | origin(bench.samples, known))
    out = Console(width=max(Console().width, 150))
    out.print(table(made, asked["lanes"]))
    out.print(f"ceilings: {best.bytes_per_s / 1e9:.1f} GB/s, {best.flops / 1e9:.0f} GFLOP/s", highlight=False)
    if keep:
        # what is compared with another lane than vLLM has a file of its own: a row there means something else
        place = RESULTS if asked["lanes"][0] == LANES[0] else RESULTS / asked["lanes"][0]
        merge(made, place / "engine.csv")


if __name__ == "__main__":
    raise SystemExit(main())
