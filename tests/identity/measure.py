"""A lab: builds each checkpoint and its oracle once, runs each scenario on it once, and remembers what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from .bench import Bench
from .checkpoints import build
from .oracle import Answer, Comparison, Oracle
from .scenarios import SCENARIOS
from .soup import anything_goes

__all__ = ["BY_GENERATE", "Lab", "Run"]

BY_GENERATE = "a_little_of_everything"
"""The scenario whose answers are all held against `generate` itself: every mechanism is in it once, and faults are
looked for with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One scenario on one checkpoint."""

    answers: list[Answer]
    comparison: Comparison


class Lab:
    """Runs of one test session (or of one report). Same checkpoint and scenario, same prompts."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """`device` is the engines'; the oracle is Hugging Face on the CPU everywhere."""
        self._folder = folder
        self._device = device
        self._oracles: dict[str, Oracle] = {}
        self._runs: dict[tuple[str, str], Run] = {}

    def folder(self, shape: str) -> Path:
        folder = self._folder / shape
        return folder if folder.exists() else build(shape, folder)

    def oracle(self, shape: str) -> Oracle:
        if shape not in self._oracles:
            self._oracles[shape] = Oracle(self.folder(shape))
        return self._oracles[shape]

    def bench(self, shape: str, scenario: str) -> Bench:
        return Bench(folder=self.folder(shape), random=Random(f"{shape}/{scenario}"), device=self._device)

    async def run(self, shape: str, scenario: str) -> Run:
        key = shape, scenario
        if key not in self._runs:
            answers = await SCENARIOS[scenario](self.bench(shape, scenario))
            comparison = self.oracle(shape).compare(answers, by_generate=scenario == BY_GENERATE)
            self._runs[key] = Run(answers=answers, comparison=comparison)
        return self._runs[key]

    async def total(self, shape: str) -> Comparison:
        """All scenarios of one checkpoint together; those not run yet are run now."""
        total = Comparison()
        for scenario in SCENARIOS:
            total.add((await self.run(shape, scenario)).comparison)
        return total

    async def soups(self, shape: str, seeds: range) -> Comparison:
        """One random engine with random apps per seed. The oracle forgets each afterwards."""
        total = Comparison()
        for seed in seeds:
            answers = await anything_goes(self.bench(shape, f"soup {seed}"))
            total.add(self.oracle(shape).compare(answers))
            self.oracle(shape).forget()
        return total
