"""`parrot bench engine`: our engine beside vLLM on one checkpoint, with nothing known of any app.

Prefill, decode at 1 to 64 streams, time to the first token, memory, and how near to the machine's own limits. Three
lanes: vLLM over HTTP, `parrot serve` over HTTP, and our engine's process straight from its port.

The invariant: the lanes take turns within each round and get the same token ids; in fp32 their answers are compared
token by token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from parrot_compat.core.engines.process import ProcessEngine

from .checkpoints import facts, folder
from .engine_cases import CASES, Case, Ceilings, Measured
from .processor_time import MOST_FOREIGN, Stopwatch, settled
from .results import Row, merge, spread
from .runs import RESULTS, RUNS, commit, hardware, today, versions
from .servers import ROOT, ServerFailed, Setting, parrot_server, stop_on_sigterm, vllm_server
from .token_streams import EngineStreams, HttpStreams, Streams

__all__ = ["main", "measure"]

LANES = ("vllm", "ours", "engine")
MOST_ATTEMPTS = 3


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
    any_load: bool
    """Rounds in which others used the machine count too."""


@dataclass(frozen=True, slots=True)
class Sample:
    case: str
    round: int
    lane: str
    measured: Measured
    is_quiet: bool


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


async def measure(lanes: Sequence[Lane], wanted: Wanted, progress: Progress) -> list[Sample]:
    samples: list[Sample] = []
    pids = [lane.pid for lane in lanes]
    for case in wanted.cases:
        bar = progress.add_task(case.name, total=wanted.rounds)
        for lane in lanes:
            await case.run(lane.streams, "warm-up", wanted.vocabulary)
        quiet = 0
        for number in range(MOST_ATTEMPTS * wanted.rounds):
            turn = number % len(lanes)
            watch = Stopwatch(pids)
            taken = []
            for lane in [*lanes[turn:], *lanes[:turn]]:
                await settled(pids)
                taken.append((lane.name, await case.run(lane.streams, f"round {number}", wanted.vocabulary)))
            is_quiet = wanted.any_load or watch.read().foreign_share <= MOST_FOREIGN
            samples += [Sample(case.name, number, lane, measured, is_quiet) for lane, measured in taken]
            quiet += is_quiet
            progress.update(bar, completed=quiet)
            if quiet >= wanted.rounds:
                break
    return samples


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


# ---- what it says ------------------------------------------------------------------------------------------


def rows(
    samples: Sequence[Sample], best: Ceilings, checkpoint: Mapping[str, Any], known: Mapping[str, str]
) -> list[Row]:
    """`known` are the columns that every row shares. The first lane is what the others are compared with."""
    values: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for sample in samples:
        values[sample.case, sample.lane].append(sample.measured)
    first = samples[0].lane if samples else ""
    made: list[Row] = []
    for case in CASES:
        for lane in dict.fromkeys(sample.lane for sample in samples):
            taken = values.get((case.name, lane))
            base = values.get((case.name, first))
            if not taken or not base:
                continue
            found = {"measured": ([each.value for each in taken], taken[0].unit)}
            if lane != first:
                pairs = list(zip(taken, base, strict=False))
                ratios = [this.value / other.value for this, other in pairs]
                found["speedup"] = (ratios if taken[0].unit != "s" else [1 / ratio for ratio in ratios], "ratio")
                found["identical_answers"] = ([float(this.tokens == other.tokens) for this, other in pairs], "share")
            shares = [best.share(case, each.value, checkpoint) for each in taken]
            roofline = [share for share in shares if share is not None]
            if roofline:
                found["roofline"] = (roofline, "share")
            made += [_row(case.name, lane, metric, *pair, known) for metric, pair in found.items()]
    return made


def _row(case: str, lane: str, metric: str, values: list[float], unit: str, known: Mapping[str, Any]) -> Row:
    measured = {"metric": metric, "unit": unit, **spread(values)}
    return Row(workload="engine", variant=case, load="", rtt_ms=0.0, system=lane, **measured, **known)


def table(made: Sequence[Row], lanes: Sequence[str]) -> Table:
    shown = Table(title="median (and how many times the first lane; share of the machine's limit; identical answers)")
    shown.add_column("case", no_wrap=True)
    for lane in lanes:
        shown.add_column(lane, justify="right", no_wrap=True)
    found = {(row.variant, row.system, row.metric): row for row in made}
    for case in dict.fromkeys(row.variant for row in made):
        cells = []
        for lane in lanes:
            main = found.get((case, lane, "measured"))
            text = "-" if main is None else f"{main.p50:,.4g} {main.unit}"
            for metric, form in (("speedup", "{:.2f}x"), ("roofline", "{:.0%}"), ("identical_answers", "={:.0%}")):
                if (row := found.get((case, lane, metric))) is not None:
                    text += f"  {form.format(row.p50)}"
            cells.append(text)
        shown.add_row(case, *cells)
    return shown


# ---- the command -------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="parrot bench engine", description="Our engine beside vLLM.")
    parser.add_argument("--model", default="l25-fp32", help="l25-fp32, l25-bf16, q125-fp32, q125-bf16, or a folder")
    parser.add_argument("--lanes", default=",".join(LANES), help="the first is the baseline")
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kv-gib", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--any-load", action="store_true", help="count rounds in which others used the machine; a trial"
    )
    options = parser.parse_args(argv)
    console = Console(stderr=True)
    checkpoint = folder(options.model)
    known = facts(checkpoint)
    context = known["max_position_embeddings"]
    setting = Setting(checkpoint=checkpoint, context_tokens=context, kv_gib=options.kv_gib, threads=options.threads)
    chosen = set(options.cases.split(","))
    cases = [case for case in CASES if case.name in chosen and case.context <= context]
    names = options.lanes.split(",")
    if unknown := [*(chosen - {case.name for case in CASES}), *(set(names) - set(LANES))]:
        console.print(f"no such case or lane: {', '.join(sorted(unknown))}", style="red")
        return 2
    try:
        best = ceilings(setting)
        asked = Wanted(cases=cases, rounds=options.rounds, vocabulary=known["vocab_size"], any_load=options.any_load)
        samples, memory, vllm = asyncio.run(_run(names, setting, asked, console))
    except ServerFailed as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    counted = [sample for sample in samples if sample.is_quiet]
    shared = {"model": options.model, "scale": f"{setting.threads} threads", "hardware": hardware()}
    shared |= {"versions": versions([vllm]), "commit": commit(), "date": today()}
    made = rows(counted, best, known, shared)
    made += [_row("memory", lane, "measured", [held / 2**30], "GiB", shared) for lane, held in memory.items()]
    out = Console(width=max(Console().width, 150))
    out.print(table(made, names))
    out.print(f"ceilings: {best.bytes_per_s / 1e9:.1f} GB/s, {best.flops / 1e9:.0f} GFLOP/s", highlight=False)
    if not options.any_load and counted:
        merge(made, RESULTS / "engine.csv")
    return 0


async def _run(
    names: Sequence[str], setting: Setting, wanted: Wanted, console: Console
) -> tuple[list[Sample], dict[str, int], str | None]:
    stop_on_sigterm()
    async with AsyncExitStack() as stack:
        with console.status(f"starting {', '.join(names)}"):
            lanes = await stack.enter_async_context(running(names, setting, RUNS / "engine"))
        with Progress(console=console, refresh_per_second=2) as progress:
            samples = await measure(lanes, wanted, progress)
        memory = {lane.name: memory_bytes(lane.pid) for lane in lanes}
        return samples, memory, next((lane.version for lane in lanes if lane.version), None)


if __name__ == "__main__":
    raise SystemExit(main())
