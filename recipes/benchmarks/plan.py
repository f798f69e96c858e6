"""What a suite was asked for, and the rows and rounds that this makes.

It knows workloads and options, nothing of servers or of time.

The invariant: the same options are the same rows in the same order, with the same text in each round.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .lanes import LANES, MISSING
from .text import FreshText, open_tokenizer
from .workloads import WORKLOADS, Round, Shape, Workload

__all__ = ["DEFAULTS", "Asked", "Planned", "asked_of", "is_installed", "missing", "name_of", "parse", "planned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What decides the numbers, and is kept with them."""

    model: str = "l25-fp32"
    scale: float = 0.25
    calls: float = 1.0
    tool_s: float = 0.1
    kv_gib: int = 2
    lanes: tuple[str, ...] = ("vllm", "s0", "s1", "ours")
    against: str | None = None
    replay: bool = False
    """Answers are recorded text, not what random weights say."""

    def shape(self, rate: float = 1.0) -> Shape:
        return Shape(tokens=self.scale, calls=self.calls, tool_s=self.tool_s, rate=rate)

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Asked:
        return cls(**{**value, "lanes": tuple(value["lanes"])})


DEFAULTS = Asked()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One row of the table: what is run from one distance, in every lane, round after round."""

    workload: Workload
    variant: str
    load: float | None
    rtt_ms: float

    def build(self, asked: Asked, checkpoint: Path, seed: str, *, rate: float = 1.0, calls: float = 1.0) -> Round:
        """The apps of one round. `seed` is what its text is drawn from; `calls` makes it smaller, to warm up."""
        text = FreshText(open_tokenizer(checkpoint), f"{self.workload.name} {self.variant} {seed}")
        shape = asked.shape(rate)
        return self.workload.variants[self.variant](dataclasses.replace(shape, calls=shape.calls * calls), text)


def planned(workloads: Sequence[str], rtts_ms: Sequence[float], loads: Sequence[float]) -> list[Planned]:
    """Rows of `w01`, `w01:VARIANT` or `w01:all` (all but those of LlamaIndex, which want an environment of their own).
    Errors: `SystemExit` with one message."""
    rows = []
    for wanted in workloads:
        name, _, variant = wanted.partition(":")
        workload = WORKLOADS.get(name)
        if workload is None:
            raise SystemExit(f"no workload {name!r}; there are {', '.join(WORKLOADS)}")
        known = list(workload.variants)
        if variant not in ("", "all", *known):
            raise SystemExit(f"no variant {variant!r} of {name}; there are all, {', '.join(known)}")
        every = [name for name in known if name not in workload.llamaindex]
        for chosen in every if variant == "all" else [variant or known[0]]:
            at = loads if chosen in workload.open_loop else [None]
            rows += [
                Planned(workload=workload, variant=chosen, load=load, rtt_ms=rtt) for load in at for rtt in rtts_ms
            ]
    return rows


def is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is not there
        return False


def missing(rows: Sequence[Planned], asked: Asked, is_there: Callable[[str], bool] = is_installed) -> str | None:
    """Why these rows cannot be run with what is installed; `None` where they can."""
    names = [f"{row.workload.name}:{row.variant}" for row in rows if row.variant in row.workload.llamaindex]
    if not names:
        return None
    if asked.replay:
        return f"{names[0]}: LlamaIndex gives a call no seed of its own, and answers are recorded by seed: no --replay"
    wanted = ["llama_index.core"]
    if any(LANES[lane].chat_class == "openai" for lane in asked.lanes if lane in LANES):
        wanted.append("llama_index.llms.openai_like")
    if all(map(is_there, wanted)):
        return None
    return (
        f"{names[0]} is a LlamaIndex app, whose OpenAILike wants an older openai package than ours: "
        "scripts/bench-setup-llamaindex puts both into .bench/llamaindex, then "
        ".bench/llamaindex/bin/python -m parrot_compat bench suite …"
    )


def asked_of(options: argparse.Namespace) -> Asked:
    """Errors: `SystemExit` with one message."""
    return Asked(
        model=options.model,
        scale=options.scale,
        calls=options.calls,
        tool_s=options.tool_time,
        kv_gib=options.kv_gib,
        lanes=_lanes(options.lanes, options.ablation),
        against=options.against,
        replay=options.replay,
    )


def name_of(asked: Asked) -> str:
    """Of a run that was given none."""
    kind = "suite" if asked.lanes[0] == "vllm" else "-".join(asked.lanes)
    replayed = "-replay" if asked.replay else ""
    return f"{kind}-{Path(asked.model).name}-{asked.scale:g}{replayed}".replace(":", "-")


def _lanes(named: str | None, ablation: str | None) -> tuple[str, ...]:
    if ablation is None:
        return DEFAULTS.lanes if named is None else tuple(named.split(","))
    if named is not None:
        raise SystemExit("--ablation says which lanes there are: leave --lanes out")
    chosen = list(MISSING) if ablation == "all" else [f"no-{name.removeprefix('no-')}" for name in ablation.split(",")]
    if unknown := [name for name in chosen if name not in MISSING]:
        known = ", ".join(name.removeprefix("no-") for name in MISSING)
        raise SystemExit(f"nothing called {unknown[0].removeprefix('no-')!r} can be left out; there are {known}")
    return ("ours", *chosen)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="parrot bench suite", description="The ten workloads, side by side in every lane."
    )
    named = parser.add_argument
    named(
        "--workloads",
        nargs="+",
        default=list(WORKLOADS),
        metavar="W",
        help="w01, w01:VARIANT or w01:all (default: all ten)",
    )
    named("--model", default=DEFAULTS.model, help="l25-fp32, l25-bf16, q125-fp32, q125-bf16, builtin:tiny or a folder")
    named(
        "--scale", type=float, default=DEFAULTS.scale, help="of the paper's token counts; 0.25 is the least that counts"
    )
    named("--calls", type=float, default=DEFAULTS.calls, help="of the paper's numbers of calls, parts and requests")
    named(
        "--tool-time", type=float, default=DEFAULTS.tool_s, help="of the time that tools take in w09 (1: 0.1 to 30 s)"
    )
    named("--rtt", default="0,50", help="round trips in ms, separated by commas")
    named("--load", default="0.5,0.8", help="of the first lane's capacity, where apps arrive by themselves")
    named("--rounds", type=int, default=5)
    lanes = f"{','.join(DEFAULTS.lanes)} by default; the first is the baseline; there are {', '.join(LANES)}"
    named("--lanes", help=lanes)
    named(
        "--ablation",
        nargs="?",
        const="all",
        metavar="NAMES",
        help="everything on, beside the same without each of these mechanisms (default: all): one server of each is up",
    )
    named(
        "--against", metavar="URL", help="a server that runs already (…/v1, serving the model as m), in place of vLLM"
    )
    named(
        "--replay", action="store_true", help="real forward passes, recorded answers: lengths and copies are an app's"
    )
    named("--kv-gib", type=int, default=DEFAULTS.kv_gib, help="KV of each server")
    named("--name", help="of the run (default: made of model and scale)")
    named("--resume", action="store_true", help="go on with the run of this name")
    named("--minutes", type=float, help="begin no further round after this long")
    named("--profile", action="store_true", help="say where the time goes in each lane, and what bounds it")
    named("--report", action="store_true", help="measure nothing: table, files and pictures of this run from its cells")
    named("--any-load", action="store_true", help="count rounds in which others used the machine (a trial, no result)")
    named("--no-results", action="store_true", help="leave recipes/benchmarks/results and README as they are")
    return parser.parse_args(argv)
