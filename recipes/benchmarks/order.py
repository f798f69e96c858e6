"""Whose turn it is: the real manager's order of calls, by the times that apps take on one saturated engine (G6).

    python -m recipes.benchmarks.order --write            # a minute and a half of one core, results/order.csv
    python -m recipes.benchmarks.order --policies all no-slack --loads 0.5 0.95

Everything is real but the engine and the clock: apps come at random to a manager over a scripted engine of eight rows,
in simulated time, which nothing else on the machine can disturb. Apps of several kinds come mixed, each kind equally
often: a chat (one call), a chain of 10 calls, a map over 20 parts with a reduce, an agent of 10 calls with pauses
between them. Loads are shares of what the engine can draw. Beside `farm` another app keeps 12 calls open all the time.

The invariant: policies see the same apps at the same moments, with answers of the same lengths.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track

from parrot_compat.core.call import Call, CallId, Sampling, VariableName
from parrot_compat.core.clock import SimulatedClock
from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine, Speed
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.core.policy import Policy
from parrot_compat.core.prompt import Constant, Input, TextPrompt
from parrot_compat.core.session import Session

from .measured import Measured, update
from .results import quantile
from .runs import RESULTS

__all__ = ["MIXES", "World", "main", "times"]

ROWS = 8
SPEED = Speed(prefill_tokens_s=20_000, step_s=0.03, row_share=0.05, chunk_tokens=10)
TOKENS_S = ROWS / (SPEED.step_s * (1 + SPEED.row_share * (ROWS - 1)))
"""Drawn by a full engine."""
POLICIES = ("no-app-order,no-newcomers", "no-newcomers", "all")
"""Each call as it was ready; the app that began first goes first; all."""
BEGIN_S = 100.0
"""How long the farm has been at it when the others come."""


@dataclass(slots=True)
class World:
    """A manager over one engine, and the times of the apps that are done, by kind."""

    policy: Policy
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    calls: int = 0
    manager: Manager = field(init=False)

    def __post_init__(self) -> None:
        fleet = Fleet(clock=self.clock)
        info = EngineInfo(name="simulated", model="scripted", context_tokens=100_000, max_rows=ROWS)
        engine = ScriptedEngine(_said, info, speed=SPEED, clock=self.clock)
        fleet.add(engine, engine.tokenizer)
        self.manager = Manager(fleet, policy=self.policy)

    def call(self, function: str, tokens: int, *reads: VariableName) -> Call:
        self.calls += 1
        head = Constant(f"{function} {self.calls}, {tokens} tokens.")
        return Call(
            id=CallId(str(self.calls)),
            prompt=TextPrompt((head, *(Input(name) for name in reads))),
            output=VariableName(f"of {self.calls}"),
            sampling=Sampling(max_tokens=400),
            function=function,
        )


def _said(prompt: str) -> str:
    """As long as the prompt says that it shall be."""
    found = re.search(r"(\d+) tokens\.", prompt)
    return "y" * int(found[1] if found else 1)


async def chat(world: World, session: Session, rng: random.Random) -> None:
    await (await session.submit(world.call("chat", rng.randint(20, 80)))).finished()


async def chain(world: World, session: Session, rng: random.Random) -> None:
    calls: list[Call] = []
    for _ in range(10):
        calls.append(world.call("chain", rng.randint(30, 70), *(call.output for call in calls[-1:])))
    await session.submit_all(calls, is_delivered=False)
    await session.read(calls[-1].output)


async def map_reduce(world: World, session: Session, rng: random.Random) -> None:
    maps = [world.call("map", rng.randint(30, 70)) for _ in range(20)]
    reduce = world.call("reduce", 60, *(call.output for call in maps))
    await session.submit_all([*maps, reduce], is_delivered=False)
    await session.read(reduce.output)


async def agent(world: World, session: Session, rng: random.Random) -> None:
    for _ in range(10):
        await (await session.submit(world.call("agent", rng.randint(25, 55)))).finished()
        await world.clock.sleep(rng.uniform(0.2, 3.0))


async def farm(world: World, session: Session, stop: asyncio.Event) -> None:
    """Twelve calls, always: whenever one is over, the next."""

    async def one() -> None:
        while not stop.is_set():
            await (await session.submit(world.call("farm", 60))).finished()

    await asyncio.gather(*(one() for _ in range(12)))


App = Callable[[World, Session, random.Random], Awaitable[None]]
APPS: Mapping[str, tuple[App, float]] = {
    "chat": (chat, 50.0),
    "chain": (chain, 500.0),
    "map-reduce": (map_reduce, 1060.0),
    "agent": (agent, 400.0),
}
"""Each with the tokens that it draws, about."""
MIXES: Mapping[str, Sequence[str]] = {
    "all kinds": ("chat", "chain", "map-reduce", "agent"),
    "chats and jobs": (*("chat",) * 9, "map-reduce"),
    "chats and agents": ("chat", "agent"),
    "chains": ("chain",),
    "chats beside a farm": ("chat",),
}
"""Bags of apps that are drawn from until they are empty."""


def times(mix: str, policy: str, load: float, *, apps: int, seed: int) -> dict[str, list[float]]:
    """Seconds from an app's first call to its last answer, by kind. `load`: the share of the engine's tokens that the
    apps ask for, the farm not counted."""
    return asyncio.run(_times(policy, mix, load, apps, random.Random(seed)))


async def _times(policy: str, mix: str, load: float, apps: int, rng: random.Random) -> dict[str, list[float]]:
    world, stop, running = World(Policy.read(policy)), asyncio.Event(), []
    farming: Sequence[asyncio.Future[None]] = ()
    if "farm" in mix:
        farming = [asyncio.ensure_future(farm(world, world.manager.open_session(), stop))]
        await world.clock.sleep(BEGIN_S)
    rate = load * TOKENS_S / statistics.mean(APPS[kind][1] for kind in MIXES[mix])
    bag: list[str] = []
    for _ in range(apps):
        if not bag:
            bag = rng.sample(MIXES[mix], len(MIXES[mix]))
        running.append(asyncio.ensure_future(_run(world, bag.pop(), random.Random(rng.random()))))
        await world.clock.sleep(rng.expovariate(rate))
    await asyncio.gather(*running)
    stop.set()
    await asyncio.gather(*farming)
    await world.manager.close()
    return world.times


async def _run(world: World, kind: str, rng: random.Random) -> None:
    began_s, session = world.clock.now(), world.manager.open_session()
    await APPS[kind][0](world, session, rng)
    world.times[kind].append(world.clock.now() - began_s)
    await session.close()


def _measured(mix: str, policy: str, load: float, options: argparse.Namespace) -> list[Measured]:
    found = [times(mix, policy, load, apps=options.apps, seed=seed) for seed in range(1, options.seeds + 1)]
    whole = [[time_s for some in one.values() for time_s in some] for one in found]
    workload = f"{mix}, {'beside it ' if 'farm' in mix else ''}load {load:g}"
    made = [
        Measured(workload, policy, "mean", "s", [statistics.mean(one) for one in whole]),
        Measured(workload, policy, "p99", "s", [quantile(one, 0.99) for one in whole]),
    ]
    for kind in dict.fromkeys(MIXES[mix]):
        made.append(Measured(workload, policy, f"{kind}, mean", "s", [statistics.mean(one[kind]) for one in found]))
        made.append(Measured(workload, policy, f"{kind}, p95", "s", [quantile(one[kind], 0.95) for one in found]))
    return made


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", default=POLICIES, help="as `parrot serve --policy` reads them")
    parser.add_argument("--mixes", nargs="+", default=list(MIXES), choices=list(MIXES))
    parser.add_argument("--loads", nargs="+", type=float, default=[0.8, 0.95])
    parser.add_argument("--apps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="keep the rows in results/order.csv")
    parser.add_argument("--results", type=Path, default=RESULTS, help="another folder for it")
    options = parser.parse_args(argv)
    cases = [(mix, load, policy) for mix in options.mixes for load in options.loads for policy in options.policies]
    console, made = Console(), []
    for mix, load, policy in track(cases, "simulating", console=Console(stderr=True), transient=True):
        # beside a farm that takes all it can, a load near 1 never ends
        some = _measured(mix, policy, 0.3 * load if "farm" in mix else load, options)
        console.print(f"{some[0].workload}, {policy}:", ", ".join(_shown(one) for one in some), highlight=False)
        made += some
    if options.write:
        command = ["python", "-m", "recipes.benchmarks.order", *(argv if argv is not None else sys.argv[1:])]
        update("order", made, command=command, folder=options.results)
    return 0


def _shown(one: Measured) -> str:
    return f"{one.metric} {quantile(one.values, 0.5):.1f} s"


if __name__ == "__main__":
    sys.exit(main())
