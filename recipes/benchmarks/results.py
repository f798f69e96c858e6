"""Rows of measurements, and the CSV files under `results/` that they are kept in.

    write("round_trips", [Measured("chain of 10, 50 ms", "planner on", "completion", "s", times)], command=sys.argv)

It measures nothing. A row is the median of its values and their 20th and 80th percentile, with the machine, the
versions, the commit and the day they come from; a file begins with the command that made it.
"""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import math
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cache
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("langchain-core", "llama-index-core", "numpy", "openai", "parrot-compat", "torch", "transformers", "vllm")


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


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a file, as text."""

    workload: str
    system: str
    metric: str
    unit: str
    p50: str
    p20: str
    p80: str
    hardware: str
    versions: str
    commit: str
    date: str


COLUMNS = tuple(field.name for field in fields(Row))


def percentile(values: Sequence[float], percent: float) -> float:
    """Between the two nearest values, linearly."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def row(measured: Measured) -> Row:
    p50, p20, p80 = (f"{percentile(measured.values, percent):.6g}" for percent in (50, 20, 80))
    what = measured.workload, measured.system, measured.metric, measured.unit
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Row(*what, p50, p20, p80, hardware(), versions(), commit(), today)


def write(name: str, measurements: Sequence[Measured], *, command: Sequence[str], folder: Path = RESULTS) -> Path:
    """`results/NAME.csv`, written anew. `command` is what makes it again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {shlex.join(command)}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(row(measured)) for measured in measurements)
    return path


def read(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(line for line in file if not line.startswith("#")):
            yield Row(**line)


# ---- where a measurement comes from --------------------------------------------------------------------


@cache
def hardware() -> str:
    """Processor and accelerator, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ", ".join([f"{_processor()} x {cores}", *_accelerators()])


@cache
def versions() -> str:
    """Of Python and of the packages that are installed here and matter to speed."""
    known = [f"python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            known.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(known)


@cache
def commit() -> str:
    """Of this checkout; with `+` where files of it were changed since."""
    here = Path(__file__).parent
    revision = _said("git", "-C", str(here), "rev-parse", "--short=12", "HEAD")
    if revision is None:
        return "unknown"
    changed = _said("git", "-C", str(here), "status", "--porcelain", "--untracked-files=no")
    return f"{revision}+" if changed else revision


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _accelerators() -> list[str]:
    said = _said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return said.splitlines() if said else []


def _said(*command: str) -> str | None:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip()
