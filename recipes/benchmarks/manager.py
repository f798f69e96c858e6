"""`parrot bench manager`: what the manager itself costs, over a scripted engine that answers at once.

Calls per second and microseconds per graph event in one process, calls per second over HTTP, and what a live variable
holds. It knows the manager's own interface and no model.

The invariant: all times are processor times of the process that serves, so they say the same on a busy machine; every
streamed chunk is received and counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from parrot_compat.core.call import Call, CallId, Sampling, VariableName
from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine, Speed
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.core.prompt import Constant, Input, TextPrompt

from .processor_time import Stopwatch
from .results import Row, merge, spread
from .runs import RESULTS, RUNS, commit, hardware, today, versions
from .servers import MODEL, free_port, launched
from .token_streams import HttpStreams

__all__ = ["Costs", "main", "measure"]

OUT_TOKENS = 32
CHUNK_TOKENS = 8
GOALS = {"us_per_event": 50.0, "calls_per_s": 2000.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of one shape of app."""

    calls: int
    events: int
    chunks: int
    cpu_s: float

    @property
    def calls_per_s(self) -> float:
        return self.calls / self.cpu_s

    @property
    def us_per_event(self) -> float:
        return 1e6 * self.cpu_s / (self.events + self.chunks)


# ---- apps --------------------------------------------------------------------------------------------------


def _single(app: int) -> list[Call]:
    """One plain request."""
    return [_call("only", [Constant(f"app {app} asks something of its own")])]


def _chain(app: int) -> list[Call]:
    first = _call("step-0", [Constant(f"app {app} begins")])
    rest = [_call(f"step-{number}", [Input(f"out-step-{number - 1}"), Constant("go on")]) for number in range(1, 10)]
    return [first, *rest]


def _map_reduce(app: int) -> list[Call]:
    maps = [_call(f"map-{number}", [Constant(f"app {app} part {number}")]) for number in range(30)]
    return [*maps, _call("reduce", [Input(f"out-map-{number}") for number in range(30)])]


SHAPES: dict[str, Callable[[int], list[Call]]] = {"single": _single, "chain10": _chain, "map30-reduce": _map_reduce}


def _call(name: str, segments: Sequence[Constant | Input]) -> Call:
    return Call(
        id=CallId(name),
        prompt=TextPrompt(tuple(segments)),
        output=VariableName(f"out-{name}"),
        sampling=Sampling(max_tokens=OUT_TOKENS, ignore_eos=True, temperature=0),
    )


# ---- measuring ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def _manager() -> AsyncIterator[tuple[Manager, Fleet]]:
    fleet = Fleet()
    info = EngineInfo(name="scripted", model=MODEL, context_tokens=65_536)
    engine = ScriptedEngine(lambda prompt: "word ", info, speed=Speed(chunk_tokens=CHUNK_TOKENS))
    fleet.add(engine, engine.tokenizer)
    async with Manager(fleet) as manager:
        yield manager, fleet


async def measure(shape: str, apps: int, at_once: int) -> Costs:
    async with _manager() as (manager, fleet):
        events = 0

        def count(event: object) -> None:
            nonlocal events
            events += 1

        fleet.events.subscribe(count)
        room = asyncio.Semaphore(at_once)
        chunks = calls = 0

        async def run(app: int) -> None:
            nonlocal chunks, calls
            async with room:
                session = manager.open_session(tenant=f"tenant-{app % 8}")
                tasks = await session.submit_all(SHAPES[shape](app))
                with ExitStack() as following:  # as a request does, so that each chunk is there when its turn comes
                    for task in tasks:
                        following.enter_context(task.followed())
                    for task in tasks:
                        async for _ in task.chunks():
                            chunks += 1
                calls += len(tasks)
                await session.close()

        await asyncio.gather(*(run(-1 - app) for app in range(min(apps, at_once))))  # warm
        events = chunks = calls = 0
        gc.collect()
        began = time.process_time()
        await asyncio.gather(*(run(app) for app in range(apps)))
        return Costs(calls=calls, events=events, chunks=chunks, cpu_s=time.process_time() - began)


async def live_variables(number: int) -> tuple[float, float]:
    """Bytes that each of so many live variables holds, and microseconds to set one among them."""
    async with _manager() as (manager, _):
        session = manager.open_session()
        gc.collect()
        before = _resident_bytes()
        began = time.process_time()
        for name in range(number):
            session.set(f"variable-{name}", "a value")
        spent = time.process_time() - began
        held = _resident_bytes() - before
        await session.close()
        return held / number, 1e6 * spent / number


def _resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))


async def over_http(calls: int, at_once: int) -> Costs:
    """Streamed completions against the whole server in a process of its own; its processor time alone counts."""
    port = free_port()
    command = [sys.executable, "-m", "recipes.benchmarks.manager", "--serve", str(port)]
    url = f"http://127.0.0.1:{port}"
    async with launched(command, RUNS / "manager.log", f"{url}/health") as server:
        assert server.pid is not None
        streams = HttpStreams(f"{url}/v1")
        room = asyncio.Semaphore(at_once)
        chunks = 0

        async def run() -> None:
            nonlocal chunks
            async with room:
                stream = await streams.run(list(b"a prompt of some words"), OUT_TOKENS)
                chunks += len(stream.arrivals)

        await asyncio.gather(*(run() for _ in range(at_once)))  # warm
        chunks, watch = 0, Stopwatch([server.pid])
        await asyncio.gather(*(run() for _ in range(calls)))
        return Costs(calls=calls, events=0, chunks=chunks, cpu_s=watch.read().servers_s)


async def serve(port: int) -> None:
    from parrot_compat.server.app import create_app
    from parrot_compat.server.listening import Listener

    async with _manager() as (manager, _):
        with Listener("127.0.0.1", port) as listener:
            await listener.serve(create_app(manager), drain_s=0, on_ready=lambda: None)


# ---- the command -------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="parrot bench manager", description="What the manager itself costs.")
    parser.add_argument("--calls", type=int, default=6000, help="of each shape of app")
    parser.add_argument("--at-once", type=int, default=64, help="apps at a time")
    parser.add_argument("--variables", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-results", action="store_true", help="leave recipes/benchmarks/results as it is")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve is not None:
        asyncio.run(serve(options.serve))
        return 0
    found: dict[tuple[str, str, str], list[float]] = {}

    def note(case: str, metric: str, unit: str, value: float) -> None:
        found.setdefault((case, metric, unit), []).append(value)

    for _ in range(options.rounds):
        runs: dict[str, Coroutine[Any, Any, Costs]] = {
            shape: measure(shape, max(1, options.calls // len(build(0))), options.at_once)
            for shape, build in SHAPES.items()
        }
        runs["http"] = over_http(options.calls // 4, options.at_once)
        for case, run in runs.items():
            costs = asyncio.run(run)
            note(case, "calls_per_s", "calls/s", costs.calls_per_s)
            note(case, "chunks", "chunks", costs.chunks)
            if costs.events:
                note(case, "us_per_event", "us", costs.us_per_event)
        held, spent = asyncio.run(live_variables(options.variables))
        note("variables", "bytes_each", "bytes", held)
        note("variables", "us_to_set", "us", spent)
    rows = [_row(case, metric, unit, values, options.at_once) for (case, metric, unit), values in found.items()]
    table = Table(title="processor time of the serving process alone; median of rounds (goal)")
    for title in ("case", "metric", "value"):
        table.add_column(title)
    for row in rows:
        goal = f"  ({GOALS[row.metric]:g})" if row.metric in GOALS and row.variant != "http" else ""
        table.add_row(row.variant, row.metric, f"{row.p50:,.4g} {row.unit}{goal}")
    Console().print(table)
    if not options.no_results:
        merge(rows, RESULTS / "manager.csv")
    return 0


def _row(case: str, metric: str, unit: str, values: list[float], at_once: int) -> Row:
    measured = {"metric": metric, "unit": unit, **spread(values)}
    here: dict[str, Any] = {"hardware": hardware(), "versions": versions(), "commit": commit(), "date": today()}
    shared: dict[str, Any] = {"load": "", "rtt_ms": 0.0, "model": "scripted", "scale": f"{at_once} apps at once"}
    return Row(workload="manager", variant=case, system="ours", **measured, **shared, **here)


if __name__ == "__main__":
    raise SystemExit(main())
