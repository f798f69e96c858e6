"""Cells as a run would have measured them, with times that a test can do sums with."""

from __future__ import annotations

from typing import Any

from recipes.benchmarks.cells import AppRecord, Cell, Place
from recipes.benchmarks.clients import CallRecord
from recipes.benchmarks.processor_time import Spent

FACTS: dict[str, Any] = {
    "asked": {"model": "m", "scale": 0.25, "calls": 1.0},
    "hardware": "a machine",
    "versions": "1, 2",
    "commit": "abc",
    "date": "2026-11-20",
}
"""Of a run."""


def call(name: str, *, prompt: str = "p", text: str = "t", tokens: int = 4, cached: int = 0) -> CallRecord:
    return CallRecord(
        name=name,
        prompt=prompt,
        max_tokens=4,
        submitted=0.0,
        first=0.1,
        finished=0.2,
        prompt_tokens=10,
        cached_tokens=cached,
        output_tokens=tokens,
        text=text,
    )


def app(key: str, completion_s: float, *calls: CallRecord, group: str = "app", error: str = "") -> AppRecord:
    return AppRecord(
        key=key,
        group=group,
        due=0.0,
        started=1.0,
        first_text=1.5,
        finished=None if error else 1.0 + completion_s,
        waited_s=0.0,
        answer="",
        error=error,
        calls=list(calls),
    )


def cell(lane: str, number: int, *apps: AppRecord, workload: str = "w01", foreign: float = 0.0) -> Cell:
    place = Place(workload=workload, variant="v", load=None, rtt_ms=50.0, round=number, lane=lane)
    spent = Spent(elapsed_s=2.0, client_s=0.5, servers_s=1.0, foreign_share=foreign)
    return Cell(place=place, began=1e9, makespan_s=2.0, spent=spent, apps=list(apps))
