"""`parrot bench suite`: the workloads in every lane, side by side, round after round; then the table.

It puts the parts together: a plan, the lanes, cells, a run on disk, results. Rounds are interleaved (every lane once
in each, another lane first each time) and repeated until enough of them are whole: nothing failed, and the machine
was quiet.

The invariant: stopped at any moment it has lost at most one round, leaves no server behind, and goes on with
--resume.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from .capacity import arriving, capacity, light_of, one_by_one, window_s
from .cells import Cell, Place, run_cell
from .checkpoints import facts, folder
from .clients import Endpoint
from .equality import wrong_lengths
from .explanations import explained
from .lanes import RunningLane, running
from .plan import DEFAULTS, Asked, Planned, asked_of, missing, name_of, parse, planned
from .processor_time import settled
from .recordings import Prose, Recordings, Replay
from .results import RESULTS_FILE, RowKey, good_rounds, merge, read_rows, summarise
from .runs import RESULTS, OtherRun, Run, versions
from .servers import ServerFailed, Setting, stop_on_sigterm
from .tables import markdown, means, table, write_readme
from .workloads import Round

__all__ = ["Suite", "main"]

README = Path(__file__).parents[2] / "README.md"
MOST_ATTEMPTS = 2
"""Rounds begun for each that is wanted, before a row is given up."""
WARM_UP_CALLS = 0.1
LEAST_SCALE = 0.25
TABLE_HEAD = "# Apps beside vLLM: written by `parrot bench suite` from suite.csv beside it"
PROFILE_HEAD = "# Where the time goes, and what bounds it: written by `parrot bench suite` from suite.csv beside it"
Places = Mapping[str, tuple[Endpoint, tuple[int, ...]]]


class Suite:
    """One run of the suite: `lanes` are up, `run` takes what is measured."""

    def __init__(
        self, asked: Asked, run: Run, rounds: int, *, any_load: bool = False, console: Console | None = None
    ) -> None:
        self.asked, self.run, self.rounds, self.any_load = asked, run, rounds, any_load
        self.console = console or Console(stderr=True)
        self.checkpoint = folder(asked.model)
        self.cells = list(run.cells())
        self.deadline = float("inf")
        self.recordings = Recordings(run.folder / "recordings") if asked.replay else None
        if self.recordings is not None:
            self.recordings.folder.mkdir(exist_ok=True)

    def good(self) -> dict[RowKey, list[dict[str, Cell]]]:
        return good_rounds(self.cells, self.asked.lanes, any_load=self.any_load)

    async def measure(self, rows: Sequence[Planned], lanes: Mapping[str, RunningLane]) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self.console, refresh_per_second=2) as progress:
            bar = progress.add_task("", total=len(rows) * self.rounds)
            for row in rows:
                if time.monotonic() > self.deadline:
                    break
                await self._row(row, lanes, progress, bar)

    async def _row(self, row: Planned, lanes: Mapping[str, RunningLane], progress: Progress, bar: TaskID) -> None:
        key = (row.workload.name, row.variant, row.load, row.rtt_ms)
        done = len(self.good().get(key, ()))
        progress.advance(bar, min(done, self.rounds))
        if done >= self.rounds:
            return
        progress.update(bar, description=f"{row.workload.name} {row.variant} {row.rtt_ms:g} ms")
        async with AsyncExitStack() as stack:
            places = {name: await stack.enter_async_context(lane.at(row.rtt_ms)) for name, lane in lanes.items()}
            rate = 1.0 if row.load is None else row.load * await self._capacity(row, places)
            begun = [cell.place.round for cell in self.cells if cell.place.row == key]
            first = max(begun, default=-1) + 1
            await self._warm_up(row, places, rate, first)
            for number in range(first, first + MOST_ATTEMPTS * (self.rounds - done)):
                if done >= self.rounds or time.monotonic() > self.deadline:
                    return
                await self._round(row, places, rate, number)
                now = len(self.good().get(key, ()))
                progress.advance(bar, now - done)
                done = now
        if done < self.rounds:
            self.console.print(f"{key}: only {done} of {self.rounds} rounds are whole", style="yellow")

    async def _warm_up(self, row: Planned, places: Places, rate: float, number: int) -> None:
        """A small round that is not written down: connections, imports, kernels of these shapes."""
        calls = WARM_UP_CALLS
        seed = f"warm-up {row.rtt_ms} {number}"
        for name in places:
            wanted = row.build(self.asked, self.checkpoint, seed, rate=rate, calls=calls)
            await self._run(self._place(row, -1, name), wanted, places, seed)

    async def _round(self, row: Planned, places: Places, rate: float, number: int) -> None:
        names = list(places)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            # built again for each lane: what an app closes over is its own
            seed = f"round {row.rtt_ms} {row.load} {number}"
            wanted = row.build(self.asked, self.checkpoint, seed, rate=rate)
            measured = await self._run(self._place(row, number, name), wanted, places, seed)
            cell = replace(measured, **self.run.stamp())
            self.run.add(cell)
            self.cells.append(cell)
            self._complain(cell)

    async def _run(self, place: Place, wanted: Round, places: Places, seed: str) -> Cell:
        endpoint, pids = places[place.lane]
        await settled([pid for _, others in places.values() for pid in others])
        if self.recordings is None:
            return await run_cell(place, wanted, endpoint, pids)
        recordings, prose = self.recordings, Prose(self.checkpoint, f"says {place.row} {seed}")
        return await run_cell(place, wanted, endpoint, pids, lambda app: Replay(recordings, prose, app.key, app.says))

    def _place(self, row: Planned, number: int, lane: str) -> Place:
        return Place(
            workload=row.workload.name,
            variant=row.variant,
            load=row.load,
            rtt_ms=row.rtt_ms,
            round=number,
            lane=lane,
        )

    def _complain(self, cell: Cell) -> None:
        where = f"{cell.place.workload} round {cell.place.round} {cell.place.lane}"
        for error in cell.errors[:3]:
            self.console.print(f"{where}: {error[:400]}", style="red", markup=False, highlight=False)
        if wrong := wrong_lengths(cell):
            self.console.print(f"{where}: {len(wrong)} answers of another length than asked for", style="red")
        if not cell.spent.is_quiet and not self.any_load:
            share = f"{cell.spent.foreign_share:.0%}"
            self.console.print(f"{where}: others used {share} of the machine, the round is dropped", style="yellow")

    async def _capacity(self, row: Planned, places: Places) -> float:
        """Of the first lane, in the workload's own unit of arrivals. Measured once in a run."""
        known = self.run.facts.setdefault("capacity", {})
        name = f"{row.workload.name} {row.variant} {row.rtt_ms:g} ms"
        if name not in known:
            self.console.print(f"{name}: finding the rate that {self.asked.lanes[0]} can bear", style="dim")
            lane = self.asked.lanes[0]
            tries = iter(range(1000))

            def build(rate: float, seed: str) -> Callable[[float], Round]:
                return lambda calls: row.build(self.asked, self.checkpoint, seed, rate=rate, calls=calls)

            async def run(wanted: Round, seed: str) -> Cell:
                return await self._run(self._place(row, -1, lane), wanted, places, seed)

            async def at(rate: float) -> Cell:
                seed = f"capacity {row.rtt_ms} {next(tries)}"
                return await run(arriving(build(rate, seed), window_s(light_s)), seed)

            alone = f"capacity {row.rtt_ms} alone"
            light_s = light_of(await run(one_by_one(build(1.0, alone)(1.0)), alone))
            known[name] = await capacity(at, light_s, 1.0 / light_s)
            self.run.save()
        return float(known[name])


# ---- the command -------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    console = Console(stderr=True)
    asked = asked_of(options)
    name = options.name or name_of(asked)
    rows = [] if options.report else planned(options.workloads, _numbers(options.rtt), _numbers(options.load))
    if why := missing(rows, asked):
        console.print(why, style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    try:
        run = Run.read(name) if options.report else Run.open(name, asked.to_json(), resume=options.resume)
        asked = Asked.from_json(run.facts["asked"])
        suite = Suite(asked, run, options.rounds, any_load=options.any_load, console=console)
        if options.minutes is not None:
            suite.deadline = time.monotonic() + 60 * options.minutes
        if rows:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_measure(suite, rows))
    except (OtherRun, ServerFailed) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print(f"stopped; --resume goes on with {name}")
        return 130
    if asked.scale < LEAST_SCALE:
        console.print(f"below {LEAST_SCALE} of the paper's tokens overheads decide: a trial, no result", style="yellow")
    is_result = not (options.no_results or options.any_load or asked.scale < LEAST_SCALE)
    _show(suite, keep=is_result, profile=options.profile)
    return 0


async def _measure(suite: Suite, rows: Sequence[Planned]) -> None:
    stop_on_sigterm()
    asked = suite.asked
    setting = Setting(
        checkpoint=suite.checkpoint,
        context_tokens=facts(suite.checkpoint)["max_position_embeddings"],
        kv_gib=asked.kv_gib,
        recordings=None if suite.recordings is None else suite.recordings.folder,
    )
    with suite.console.status(f"starting {', '.join(asked.lanes)} (vLLM takes a minute)"):
        stack = AsyncExitStack()
        lanes = await stack.enter_async_context(running(asked.lanes, setting, suite.run.folder, against=asked.against))
    async with stack:
        suite.run.facts["lanes"] = {name: dict(lane.server.notes) for name, lane in lanes.items()}
        suite.run.facts["versions"] = versions(lane.server.notes.get("vllm") for lane in lanes.values())
        suite.run.save()
        await suite.measure(rows, lanes)


def _show(suite: Suite, *, keep: bool, profile: bool) -> None:
    """The table; the CSV, the plots and README where the run is a result and not a trial."""
    lanes = suite.asked.lanes
    rows = summarise(suite.good(), lanes, suite.run.facts)
    out = Console(width=max(Console().width, 120))
    out.print(table(rows, lanes))
    if profile:
        out.print(explained(rows, lanes), markup=False, highlight=False)
    if not keep or not rows:
        return
    # what is compared with another lane than vLLM has files of its own: a row there means something else
    place = RESULTS if lanes[0] == DEFAULTS.lanes[0] else RESULTS / lanes[0]
    merge(rows, place / RESULTS_FILE)
    everything = read_rows(place / RESULTS_FILE)
    (place / "table.md").write_text(f"{TABLE_HEAD}\n\n{markdown(everything, lanes)}\n", "utf-8")
    (place / "profile.md").write_text(f"{PROFILE_HEAD}\n\n{explained(everything, lanes)}\n", "utf-8")
    if place == RESULTS and not write_readme(README, means(everything, lanes)):
        suite.console.print("README.md has no markers for the means: it is left as it is", style="dim")
    from .plots import draw  # here: matplotlib is slow to import and only drawing needs it

    counted = [cell for rounds in suite.good().values() for found in rounds for cell in found.values()]
    for path in draw(counted, rows, lanes, place):
        suite.console.print(f"drawn {path}", style="dim", highlight=False)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",") if number]


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


if __name__ == "__main__":
    raise SystemExit(main())
