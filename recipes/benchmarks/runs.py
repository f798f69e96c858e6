"""A run on disk: what was asked, and every cell as it was measured, so that it can be resumed, replayed and reread.

    .bench/runs/NAME/  run.json  cells.jsonl (or samples.jsonl, of engines)  *.log

It knows files, nothing of how a cell comes to be.

The invariant: cells are only ever appended, each whole; a run is resumed only with what it was begun with, on the same
hardware, and what is measured says itself at which commit and when.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from .cells import Cell

__all__ = ["RESULTS", "RUNS", "OtherRun", "Run", "commit", "hardware", "today", "versions"]

ROOT = Path(__file__).parents[2]
RUNS = ROOT / ".bench" / "runs"
RESULTS = Path(__file__).parent / "results"


class OtherRun(Exception):
    """A run of this name was begun with other options or elsewhere, or there is none."""


@dataclass(frozen=True, slots=True)
class Run:
    folder: Path
    facts: dict[str, Any]
    """`asked`, `hardware`, `versions`, `commit`, `date` and, once they are up, `lanes`; commit and date of when it was
    begun."""
    here: Mapping[str, str] = field(default_factory=dict)
    """`hardware` and `commit` of this process, as it began: the code that it measures with. Of a run that is only read
    nothing."""

    @classmethod
    def open(cls, name: str, asked: dict[str, Any], *, resume: bool, under: Path = RUNS) -> Run:
        """To measure. Errors: `OtherRun`."""
        folder = under / name
        here = {"hardware": hardware(), "commit": commit()}
        place = folder / "run.json"
        if place.exists():
            facts = json.loads(place.read_text())
            if not resume:
                raise OtherRun(f"there is a run {name!r} in {folder}: --resume goes on with it, --name names another")
            changed = [key for key in asked if facts["asked"].get(key) != asked[key]]
            if changed:
                pairs = ", ".join(f"{key} was {facts['asked'].get(key)!r}, now {asked[key]!r}" for key in changed)
                raise OtherRun(f"run {name!r} was begun with other options ({pairs}): --name names another")
            if facts["hardware"] != here["hardware"]:
                where = f"on other hardware ({facts['hardware']}, this is {here['hardware']})"
                raise OtherRun(f"run {name!r} was begun {where}: --name names another")
            return cls(folder, facts, here)
        folder.mkdir(parents=True)
        run = cls(folder, {"asked": asked, "versions": versions(), **here, "date": today(), "lanes": {}}, here)
        run.save()
        return run

    @classmethod
    def read(cls, name: str, under: Path = RUNS) -> Run:
        """Errors: `OtherRun` where there is none."""
        place = under / name / "run.json"
        if not place.exists():
            raise OtherRun(f"there is no run {name!r} in {under}")
        return cls(under / name, json.loads(place.read_text()))

    def save(self) -> None:
        (self.folder / "run.json").write_text(json.dumps(self.facts, indent=2) + "\n")

    def stamp(self) -> dict[str, str]:
        """What is measured now says of itself: where, at which commit, on which day."""
        return {**self.here, "date": today()}

    def add(self, cell: Cell) -> None:
        self.append("cells.jsonl", cell.to_json())

    def cells(self) -> Iterator[Cell]:
        return map(Cell.from_json, self.lines("cells.jsonl"))

    def append(self, name: str, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        with (self.folder / name).open("ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # killed in the middle of a line, which stays what nobody can read
                    line = b"\n" + line
            file.write(line)

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        place = self.folder / name
        if not place.exists():
            return
        with place.open() as file:
            for line in file:
                with suppress(json.JSONDecodeError):  # the run was killed in the middle of it
                    yield json.loads(line)


def today() -> str:
    return time.strftime("%Y-%m-%d")


def hardware() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    said = f"{os.cpu_count()} x {name}"
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpus = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0]
        return f"{gpus}, {said}"
    except (OSError, subprocess.CalledProcessError):
        return said


def versions(vllm: Iterable[str | None] = ()) -> str:
    """Of what the numbers hang on; `vllm` are the versions that the servers named."""
    names = ("torch", "transformers", "openai", "langchain-core", "langchain-openai", "parrot-compat")
    known = [f"python {sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"]
    for name in names:
        try:
            known.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join([*known, *sorted({f"vllm {version}" for version in vllm if version})])


def commit() -> str:
    """Of this checkout; a `+` where tracked files have changed since."""
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
        return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
