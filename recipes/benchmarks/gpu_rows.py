"""What a measurement on a device says: rows, their CSV file and their table. It needs torch and nothing else.

The invariant: a row names its device, versions, commit and date; a later run of the same case on the same device
replaces it.
"""

from __future__ import annotations

import csv
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["FAILURES", "KEY", "RESULTS", "ROOT", "GpuRow", "Where", "commit", "merge_csv", "read", "table", "times_s"]

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[2]
FAILURES = "failures"
"""The metric of the row that says whether a case failed: of 1 case, or 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What the numbers of a run hang on."""

    device: str
    versions: str
    commit: str
    date: str

    @classmethod
    def here(cls, device: torch.device, said_commit: str | None) -> Where:
        names = [name for name in ("torch", "triton", "transformers", "vllm") if _version(name)]
        return cls(
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}",
            versions=", ".join([f"python {sys.version.split()[0]}", *(f"{name} {_version(name)}" for name in names)]),
            commit=said_commit or commit(),
            date=time.strftime("%Y-%m-%d"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRow(Where):
    part: str
    case: str
    system: str
    metric: str
    unit: str
    p50: float
    least: float
    most: float
    tries: int
    note: str = ""
    """What a number does not say."""

    @classmethod
    def of(
        cls, where: Where, part: str, case: str, system: str, metric: str, unit: str, values: Sequence[float],
        note: str = "",
    ) -> GpuRow:  # fmt: skip
        return cls(
            **asdict(where), part=part, case=case, system=system, metric=metric, unit=unit,
            p50=_short(statistics.median(values)), least=_short(min(values)), most=_short(max(values)),
            tries=len(values), note=note,
        )  # fmt: skip


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """Of this checkout; a `+` where tracked files have changed since. A copy without its history says "unknown"."""
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
        return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def times_s(run: Callable[[], object], device: torch.device, tries: int) -> list[float]:
    """Seconds of each try, after two that are not counted: kernels are compiled in the first."""
    found = []
    for number in range(tries + 2):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            taken = begin.elapsed_time(end) / 1e3
        else:
            began = time.perf_counter()
            run()
            taken = time.perf_counter() - began
        if number > 1:
            found.append(max(taken, 1e-9))
    return found


def merge_csv(lines: Iterable[Any], key: Sequence[str], path: Path) -> None:
    """Into the file; what is there under other keys stays. `lines` are dataclasses, all of one class."""
    made = [asdict(line) for line in lines]
    kept: dict[tuple[str, ...], dict[str, object]] = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = {tuple(row[name] for name in key): dict(row) for row in csv.DictReader(file)}
    kept |= {tuple(str(row[name]) for name in key): row for row in made}
    if kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(made[0] if made else next(iter(kept.values()))), lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept[each] for each in sorted(kept))


def read(path: Path) -> list[GpuRow]:
    """Rows of a file that `merge_csv` wrote."""
    numbers = {"p50": float, "least": float, "most": float, "tries": int}
    with path.open(newline="", encoding="utf-8") as file:
        lines = [{name: numbers.get(name, str)(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [GpuRow(**line) for line in lines]


def table(rows: Sequence[GpuRow]) -> str:
    """Markdown, a table for each place that rows come from. Of a case that did not fail nothing is said of failures."""
    places: dict[tuple[str, ...], list[GpuRow]] = {}
    for row in rows:
        if row.metric != FAILURES or row.p50:
            places.setdefault((row.device, row.commit, row.date, row.versions), []).append(row)
    return "\n\n".join(
        "\n".join([f"## {device}, commit {commit}, {date}", "", versions, "", *_lines(found)])
        for (device, commit, date, versions), found in places.items()
    )


def _lines(rows: Sequence[GpuRow]) -> Iterator[str]:
    yield "| part | case | system | metric | median | least | most | note |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        numbers = " | ".join(f"{value:,.4g}" for value in (row.p50, row.least, row.most))
        yield f"| {row.part} | {row.case} | {row.system} | {row.metric} [{row.unit}] | {numbers} | {row.note} |"


KEY = tuple(item.name for item in fields(GpuRow) if item.name in {"device", "part", "case", "system", "metric"})
