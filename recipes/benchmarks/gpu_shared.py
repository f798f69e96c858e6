"""Whole decode steps of rows whose prompts begin alike, with what is shared read together and apart.

The invariant: only how keys are read, and how kernels are launched, differs between systems. Beginnings are computed
once in each, and found.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from parrot_compat.gpu.kernels.costs import DeviceCosts
from parrot_compat.gpu.runner import ModelRunner

from .gpu_cases import Cases
from .gpu_rows import GpuRow, Where
from .gpu_shapes import Load
from .gpu_steps import Steps, drawing_s, outputs

__all__ = ["TOGETHER_OR_NOT", "Group", "Told", "over_a_prefix", "shared_steps"]

Group = tuple[str, int]
"""(its name, rows)"""
TOGETHER_OR_NOT: dict[str, dict[str, bool]] = {
    "together": {"share_prefixes": True, "enforce_eager": False},
    "together, no graphs": {"share_prefixes": True, "enforce_eager": True},
    "apart": {"share_prefixes": False, "enforce_eager": False},
}
WORTH_IT = DeviceCosts(
    device="one that reads slowly", dtype="float32", memory_bytes_per_s=1.0, cache_bytes_per_s=1e12, cache_bytes=0,
    products_per_s=1e12, launch_s=0.0, versions="", commit="", date="",
)  # fmt: skip
"""Every prefix is worth being read together, however short."""
TEXT_TOKENS = 48
"""Of a text that is compared: a step of a size is captured when it is met for the second time, and replayed then."""


@dataclass(frozen=True, slots=True)
class Told:
    """How the texts over a prefix were drawn, and what they are."""

    texts: list[list[int]]
    shared: list[int]
    """Of each launch, how many prefixes its rows read together."""

    @property
    def launches(self) -> int:
        """That share a prefix."""
        return sum(count > 0 for count in self.shared)


def over_a_prefix(
    runner: ModelRunner,
    front: list[int],
    prompts: Sequence[list[int]],
    tokens: int,
    systems: Mapping[str, dict[str, bool]] = TOGETHER_OR_NOT,
) -> dict[str, Told]:
    """Greedy texts whose `prompts` begin with `front`, which is computed once: read together, with graphs
    and without, and apart."""
    found = {}
    with _all_worth_it(runner):
        for system, changed in systems.items():
            steps = Steps(runner, async_scheduling=True, **changed)
            steps.know(front)
            steps.ask([(prompt, tokens) for prompt in prompts])
            found[system] = Told(steps.run()[1:], steps.launches.shared)
    return found


@contextmanager
def _all_worth_it(runner: ModelRunner) -> Iterator[None]:
    chosen = runner.sharing
    if chosen is not None:
        tiling = replace(chosen.tiling, split_keys=1)  # or so short a prefix would be left to what follows
        runner.sharing = replace(chosen, costs=WORTH_IT, tiling=tiling)
    try:
        yield
    finally:
        runner.sharing = chosen


def shared_steps(name: str, runner: ModelRunner, load: Load, cases: Cases) -> Iterator[GpuRow]:
    """Right first: texts of rows that read a prefix together. Then steps: whether prefixes are read together is the
    engine's own choice there, and rows say of how many it was made."""
    for rows in load.front_rows:
        case = f"{name} texts of {rows} rows over {load.front} shared"
        if _fills_a_graph(rows, runner):
            yield from cases.of(case, partial(_texts, case, runner, load, rows, cases.where))
    tail = f"{load.front} shared {load.private} private"
    middle = load.front_rows[len(load.front_rows) // 2]
    steps: dict[str, tuple[list[Group], int]] = {
        **{f"{name} decode {rows} rows {tail}": ([("g", rows)], 0) for rows in load.front_rows},
        f"{name} decode 2 groups of {middle} rows and 1 row, {tail}": ([("g", middle), ("h", middle)], 1),
    }
    for case, (groups, strangers) in steps.items():
        yield from cases.of(case, partial(_beside, case, runner, load, groups, strangers, cases.where))


def _fills_a_graph(rows: int, runner: ModelRunner) -> bool:
    """Whether so many are not padded: a product of more rows may sum in another order. Without graphs none are."""
    if runner.graphs is None:
        return True
    # Late: it needs triton.
    from parrot_compat.gpu.cuda_graphs import ROW_COUNTS

    return rows in ROW_COUNTS


def _texts(case: str, runner: ModelRunner, load: Load, rows: int, where: Where) -> Iterator[GpuRow]:
    """With graphs and without, in the model's own dtype: the launches are the same, so every bit is."""
    drawn = random.Random(case)
    # All prompts fit into one step: rows that begin together end together, so no step has fewer of them.
    own = min(load.private, runner.config.step_tokens // rows)
    front, *tails = ([drawn.randrange(3, 500) for _ in range(tokens)] for tokens in (load.front, *[own] * rows))
    sizes = 0 if runner.graphs is None else len(runner.graphs)
    systems = {system: changed for system, changed in TOGETHER_OR_NOT.items() if changed["share_prefixes"]}
    told = over_a_prefix(runner, front, [front + tail for tail in tails], TEXT_TOKENS, systems)
    graphs, plain = told["together"], told["together, no graphs"]
    differ = sum(one != other for one, other in zip(graphs.texts, plain.texts, strict=True))
    row = partial(GpuRow.of, where, "engine", case)
    yield row("ours, together", "launches that share a prefix", "1", [graphs.launches])
    yield row("ours, together, no graphs", "launches that share a prefix", "1", [plain.launches])
    yield row("ours, together", "texts changed by graphs", "1", [differ])
    if differ:
        raise AssertionError(f"CUDA graphs change {differ} of {rows} texts over a shared prefix")
    if runner.device.type == "cuda":
        _check_replayed(graphs, plain, 0 if runner.graphs is None else len(runner.graphs) - sizes)


def _check_replayed(graphs: Told, plain: Told, sizes: int) -> None:
    """`sizes` of steps were new: each is replayed when it is met for the third time."""
    if not plain.launches:
        raise AssertionError("no prefix is read together")
    if graphs.launches <= 2 * sizes:
        raise AssertionError(
            f"nothing says that a graph was replayed: {graphs.launches} launches share a prefix, {sizes} sizes are new"
        )


def _beside(
    case: str, runner: ModelRunner, load: Load, groups: list[Group], strangers: int, where: Where
) -> Iterator[GpuRow]:
    row = partial(GpuRow.of, where, "engine", case)
    found = {}
    for system, is_shared in (("ours, apart", False), ("ours, together", True)):
        steps = Steps(runner, enforce_eager=False, async_scheduling=True, share_prefixes=is_shared)
        found[system] = _decode_s(steps, load, groups, strangers)
        yield row(system, "time of a step", "s", found[system])
        yield row(system, "prefixes read together", "1", [max(steps.launches.shared)])
    pairs = zip(found["ours, apart"], found["ours, together"], strict=True)
    yield row("ours, together", "speedup", "ratio", [apart / together for apart, together in pairs])


def _decode_s(steps: Steps, load: Load, groups: list[Group], strangers: int) -> list[float]:
    """Seconds of a step of rows that begin as others do, group by group, and of strangers who begin as nobody does."""
    drawn = random.Random(load.front)

    def text(tokens: int) -> list[int]:
        return [drawn.randrange(3, 500) for _ in range(tokens)]

    rows = sum(members for _, members in groups) + strangers
    out = outputs(steps, rows * load.private + strangers * load.front, load.tries)
    own = load.private - out // 2
    fronts = {group: text(load.front) for group, _ in groups}
    for front in fronts.values():
        steps.know(front)
    for group, members in groups:
        steps.ask([(fronts[group] + text(own), out) for _ in range(members)])
    if strangers:
        steps.ask([(text(load.front + own), out) for _ in range(strangers)])
    return drawing_s(steps, rows, load.tries)
