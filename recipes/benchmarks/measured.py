"""Measurements of one small benchmark, and the CSV file under `results/` that they are kept in.

    write("round_trips", [Measured("chain of 10, 50 ms", "planner on", "completion", "s", times)], command=[…])

It measures nothing. A row is the median of its values and their 20th and 80th percentile, with the machine, the
versions, the commit and the day they come from; a file begins with the command that makes it again.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .results import quantile
from .runs import RESULTS, commit, hardware, versions

__all__ = ["COLUMNS", "Measured", "command_of_models", "read", "update", "write"]

COLUMNS = ("workload", "system", "metric", "unit", "p50", "p20", "p80", "hardware", "versions", "commit", "date")


@dataclass(frozen=True, slots=True)
class Measured:
    """One quantity, measured several times."""

    workload: str
    system: str
    metric: str
    unit: str
    values: Sequence[float]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"{self.workload}, {self.system}: {self.metric} has no values")


def write(name: str, measurements: Sequence[Measured], *, command: Sequence[str], folder: Path = RESULTS) -> Path:
    """`NAME.csv` in the folder, written anew."""
    return _written(name, [f"# {shlex.join(command)}\n"], _rows(measurements), folder)


def update(name: str, measurements: Sequence[Measured], *, command: Sequence[str], folder: Path = RESULTS) -> Path:
    """As `write`, where the rows of other systems stay, and the command that made them."""
    path, systems = folder / f"{name}.csv", {one.system for one in measurements}
    comments = [f"# {', '.join(sorted(systems))}: {shlex.join(command)}\n"]
    rows = _rows(measurements)
    if path.exists():
        others = [row for row in read(path) if row["system"] not in systems]
        rows = [tuple(row[column] for column in COLUMNS) for row in others] + rows
        named = tuple(f"# {row['system']}: " for row in others)
        with path.open(encoding="utf-8") as file:
            comments = [line for line in file if named and line.startswith(named)] + comments
    return _written(name, comments, rows, folder)


def command_of_models(name: str, says: str | None, measure: Callable[[str], list[Measured]]) -> int:
    """The command `python -m recipes.benchmarks.NAME [MODELS] [--write]`: `measure` asked for each model, and shown."""
    parser = argparse.ArgumentParser(description=says, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["l25-fp32"])
    parser.add_argument("--write", action="store_true", help="keep the measurements under results/")
    asked = parser.parse_args()
    made = [row for model in asked.models for row in measure(model)]
    for row in made:
        print(f"{row.workload:44} {row.system:7} {row.metric:10} {quantile(row.values, 0.5):.4g} {row.unit}")
    if asked.write:
        write(name, made, command=["python", "-m", f"recipes.benchmarks.{name}", *asked.models, "--write"])
    return 0


def _rows(measurements: Sequence[Measured]) -> list[tuple[str, ...]]:
    facts = hardware(), versions(), commit(), time.strftime("%Y-%m-%d")
    return [(one.workload, one.system, one.metric, one.unit, *_percentiles(one.values), *facts) for one in measurements]


def _percentiles(values: Sequence[float]) -> list[str]:
    return [f"{quantile(values, at):.6g}" for at in (0.5, 0.2, 0.8)]


def _written(name: str, comments: Sequence[str], rows: Sequence[Sequence[str]], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        file.writelines(comments)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return path


def read(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(line for line in file if not line.startswith("#"))
