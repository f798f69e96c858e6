"""How many round trips an app pays for: the recipes' apps from 0, 50 and 240 ms away, planner off and on.

    python -m recipes.benchmarks.round_trips
    python -m recipes.benchmarks.round_trips --rtt-ms 100 --rounds 3 --engines scripted --apps chain copilot

The scripted engine takes the same time for every answer, so that what is left is the network and our own code, and
round trips can be counted; builtin:tiny is a real model. Lanes take turns, all answers have the same length, every run
reads text of its own (so no run finds its prompts cached), and everything goes through one delay proxy. A first pair
of runs on equal text opens the connections, and shows that the answers are equal. What other programs took of the
processors is written down too: where that is much, times of builtin:tiny say little.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from parrot_compat.integrations.langchain import ChatParrot, planning
from parrot_compat.integrations.plans.closing import CLOSE_TIMEOUT_S, closes_sent
from recipes.serving import far_away, script, server

from .measured import Measured, write
from .processor_time import Stopwatch
from .round_trip_apps import APPS, counted
from .runs import RESULTS

OFF, ON = "planner off", "planner on"
SCRIPTED = "scripted"
HAS_PROC = Path("/proc/self/task").is_dir()
MAX_TOKENS = 12
PART_WORDS = 60


@dataclass(frozen=True, slots=True)
class Place:
    """Where an app runs, and which."""

    engine: str
    workload: str
    rtt_ms: float

    def __str__(self) -> str:
        return f"{self.workload}, {self.rtt_ms:g} ms round trip, {self.engine}"


@dataclass(frozen=True, slots=True)
class Answers:
    """How the answers of a run came."""

    pushed: int
    claimed: int
    direct: int

    def __str__(self) -> str:
        told = {"pushed": self.pushed, "claimed": self.claimed, "direct": self.direct}
        return ", ".join(f"{count} {word}" for word, count in told.items() if count)


@dataclass(slots=True)
class Times:
    off: list[float] = field(default_factory=list)
    on: list[float] = field(default_factory=list)
    answers: dict[bool, Answers] = field(default_factory=dict)
    """How they came in one run, with the planner (True) and without."""
    foreign: float | None = None
    """What other programs took of the processors, 0 to 1."""

    @property
    def ratios(self) -> list[float]:
        return [off / on for off, on in zip(self.off, self.on, strict=True)]


def fresh_parts(count: int, seed: str) -> list[str]:
    """Words of the language reference in an order of the seed's own; each part begins with its own number."""
    draw = random.Random(seed)
    words = sorted(set(re.findall(r"[a-z]{3,9}", topics["objects"])))
    return [f"{draw.getrandbits(32):08x} {' '.join(draw.choices(words, k=PART_WORDS))}" for _ in range(count)]


# ---- measuring -----------------------------------------------------------------------------------------


async def run(app: str, llm: ChatParrot, parts: Sequence[str], *, planner: bool) -> tuple[float, str, Answers]:
    before = counted()
    with planning(planner):
        began = time.perf_counter()
        answer = await APPS[app](llm, parts)
        seconds = time.perf_counter() - began
    await asyncio.to_thread(closes_sent, CLOSE_TIMEOUT_S)  # the next run finds the connections free
    now = counted()
    came = Answers(*(now[word] - before[word] for word in ("pushed", "claimed", "direct")))
    return seconds, answer, came


async def measure(engine: str, near: str, options: argparse.Namespace, progress: Progress) -> dict[Place, Times]:
    found: dict[Place, Times] = {}
    for rtt_ms in options.rtt_ms:
        with far_away(near, rtt_ms) as far:
            settings: dict[str, Any] = {"max_tokens": MAX_TOKENS, "temperature": 0, "extra_body": {"ignore_eos": True}}
            llm = ChatParrot(base_url=far, max_retries=0, **settings)
            for workload in options.apps:
                place = Place(engine, workload, rtt_ms)
                bar = progress.add_task(str(place), total=2 * (1 + options.rounds))
                found[place] = Times()
                same = fresh_parts(options.calls, f"{place} equal")
                answers = []
                for planner in (False, True):
                    _, answer, found[place].answers[planner] = await run(workload, llm, same, planner=planner)
                    answers.append(answer)
                    progress.advance(bar)
                if answers[0] != answers[1]:
                    raise SystemExit(f"{place}: the answers differ: {answers[0]!r}, {answers[1]!r}")
                watch = Stopwatch(children()) if HAS_PROC else None
                for number in range(options.rounds):
                    # always by turns: the HTTP client drops a connection that was idle for 5 s
                    for planner in (False, True):
                        parts = fresh_parts(options.calls, f"{place} {number} {planner}")
                        seconds, _, _ = await run(workload, llm, parts, planner=planner)
                        (found[place].on if planner else found[place].off).append(seconds)
                        progress.advance(bar)
                found[place].foreign = None if watch is None else watch.read().foreign_share
                progress.remove_task(bar)
    return found


def children() -> list[int]:
    """The server and the proxy, as this process started them."""
    return [int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]


def measurements(found: dict[Place, Times], calls: int) -> Iterator[Measured]:
    for place, times in found.items():
        name = f"{place.workload} of {calls} calls, {place.rtt_ms:g} ms round trip, {place.engine} engine"
        yield Measured(name, OFF, "completion", "s", times.off)
        yield Measured(name, ON, "completion", "s", times.on)
        yield Measured(name, ON, "speedup", "ratio", times.ratios)
        for planner, came in times.answers.items():
            for word in ("pushed", "claimed", "direct"):
                yield Measured(name, ON if planner else OFF, word, "answers", [getattr(came, word)])
        if times.foreign is not None:
            yield Measured(name, "both", "foreign_cpu_share", "share", [times.foreign])
        for system in (OFF, ON):
            if (paid := round_trips(found, place, system)) is not None:
                yield Measured(name, system, "round_trips", "round trips", paid)


def round_trips(found: dict[Place, Times], place: Place, system: str) -> list[float] | None:
    """What is slower than at no distance, in round trips: of the scripted engine, whose answers all take one time."""

    def seconds(at: Place) -> list[float]:
        return found[at].off if system == OFF else found[at].on

    here = Place(place.engine, place.workload, 0.0)
    if not place.rtt_ms or here not in found or place.engine != SCRIPTED:
        return None
    least = statistics.median(seconds(here))
    return [(each - least) * 1000 / place.rtt_ms for each in seconds(place)]


def table(found: dict[Place, Times], calls: int) -> Table:
    shown = Table(
        title=f"{calls} calls, median of {len(next(iter(found.values())).off)}", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for title in ("engine", "app"):
        shown.add_column(title)
    for title in ("round trip", "off", "on", "times as fast", "trips off", "trips on"):
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("answers with planner", no_wrap=True)
    for place, times in found.items():
        trips = (round_trips(found, place, system) for system in (OFF, ON))
        paid = ("-" if each is None else f"{statistics.median(each):.1f}" for each in trips)
        seconds = (f"{statistics.median(each):.3f} s" for each in (times.off, times.on))
        ratio = f"{statistics.median(times.ratios):.2f}"
        came = str(times.answers.get(True, "-"))
        shown.add_row(place.engine, place.workload, f"{place.rtt_ms:g} ms", *seconds, ratio, *paid, came)
    return shown


def started(engine: str) -> AbstractContextManager[str]:
    if engine == SCRIPTED:
        return script(["-m", "recipes.benchmarks.scripted_server"])
    return server(None, engine)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Round trips that an app pays for.")
    parser.add_argument("--rtt-ms", type=float, nargs="+", default=[0.0, 50.0, 240.0], metavar="MS")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each lane that count (5)")
    parser.add_argument("--calls", type=int, default=10, help="calls of each app (10)")
    parser.add_argument("--apps", nargs="+", default=list(APPS), choices=APPS, metavar="APP", help=", ".join(APPS))
    parser.add_argument("--engines", nargs="+", default=[SCRIPTED, "builtin:tiny"], help="scripted, or a model")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where round_trips.csv goes")
    options = parser.parse_args(argv)
    console = Console()
    found: dict[Place, Times] = {}
    before = counted()
    for engine in options.engines:
        with started(engine) as near, Progress(console=console, transient=True) as progress:
            found |= asyncio.run(measure(engine, near, options, progress))
    console.print(table(found, options.calls))
    now = counted()
    if shares := [times.foreign for times in found.values() if times.foreign is not None]:
        others = f"other programs took {min(shares):.0%} to {max(shares):.0%} of the processors"
        console.print(others, style="dim", highlight=False)
    came = {word: now[word] - before[word] for word in now}
    counts = f"{came['pushed']} answers pushed, {came['claimed']} claimed"
    console.print(f"{counts}, {came['wasted']} planned calls in vain", style="dim", highlight=False)
    command = ["python", "-m", "recipes.benchmarks.round_trips", *(sys.argv[1:] if argv is None else argv)]
    place = write("round_trips", list(measurements(found, options.calls)), command=command, folder=options.results)
    console.print(f"written to {place}", style="dim", highlight=False, soft_wrap=True)
    try:
        from .round_trip_plot import draw
    except ImportError:  # matplotlib, of the extra `bench`
        return 0
    for picture in draw(place, options.results):
        console.print(f"drawn in {picture}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
