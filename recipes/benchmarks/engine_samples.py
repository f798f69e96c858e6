"""Samples of engines: one round of one case in every lane, kept as it was measured, and the rows that they come to.

It knows cases and rows of results, nothing of engines or of how long anything takes.

The invariant: a sample is whole, with every lane in it; a row is made of the samples of a case that has all its rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from .engine_cases import CASES, Ceilings, Measured
from .results import Row, origin, spread

__all__ = ["Sample", "finished", "memory_rows", "rows", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    case: str
    round: int
    is_quiet: bool
    """Nobody else used the machine."""
    measured: Mapping[str, Measured]
    """By lane, the first one's first: what the others are compared with."""
    hardware: str = ""
    commit: str = ""
    date: str = ""
    """Of the process that measured it (`Run.stamp`). A sample that says nothing is as old as its run."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Sample:
        measured = {
            lane: Measured(**{**one, "tokens": tuple(map(tuple, one["tokens"]))})
            for lane, one in value["measured"].items()
        }
        return cls(**{**value, "measured": measured})


def finished(samples: Sequence[Sample], rounds: int) -> dict[str, list[Sample]]:
    """By case, those with so many rounds."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.case, []).append(sample)
    return {case: taken for case, taken in found.items() if len(taken) >= rounds}


def rows(
    found: Mapping[str, Sequence[Sample]], best: Ceilings, checkpoint: Mapping[str, Any], known: Mapping[str, str]
) -> list[Row]:
    """Of the samples of each case. `known` are the columns that every row shares; where, at which commit and when says
    the sample itself, if it can."""
    made: list[Row] = []
    for case in CASES:
        taken = found.get(case.name, ())
        first = next(iter(taken[0].measured)) if taken else ""
        for lane in taken[0].measured if taken else ():
            base = [sample.measured[first] for sample in taken]
            these = [sample.measured[lane] for sample in taken]
            values = {"measured": ([each.value for each in these], these[0].unit)}
            if lane != first:
                ratios = [this.value / other.value for this, other in zip(these, base, strict=True)]
                equal = [float(this.tokens == other.tokens) for this, other in zip(these, base, strict=True)]
                values["speedup"] = (ratios if these[0].unit != "s" else [1 / ratio for ratio in ratios], "ratio")
                values["identical_answers"] = (equal, "share")
            shares = [best.share(case, each.value, checkpoint) for each in these]
            roofline = [share for share in shares if share is not None]
            if roofline:
                values["roofline"] = (roofline, "share")
            columns = {**known, **origin(taken, known)}
            made += [_row(case.name, lane, metric, *pair, columns) for metric, pair in values.items()]
    return made


def memory_rows(held_bytes: Mapping[str, int], known: Mapping[str, str]) -> list[Row]:
    """`held_bytes`: the most that each lane held."""
    return [_row("memory", lane, "measured", [held / 2**30], "GiB", known) for lane, held in held_bytes.items()]


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
