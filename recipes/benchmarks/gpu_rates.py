"""Decode, prompt and output rates of an engine of which nothing is known but how to ask it: the same for every system.

Each run is one call, all its sequences at once. A rate of decode is made of the difference of two runs that differ in
nothing but how long their texts are: prompts, and what a call costs by itself, are not in it.

The invariant: no prompt is asked twice, whatever is measured: what a cache knows of one is no help with another.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .gpu_budget import Budget
from .gpu_shapes import Load

__all__ = ["Asked", "Rate", "Run", "mixed_rate", "rates"]

Asked = Sequence[tuple[list[int], int]]
"""(prompt, output tokens) of each sequence."""
Run = Callable[[Asked], object]
TRIES = 2


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens per second, once for each try."""

    case: str
    metric: str
    values: list[float]


def rates(run: Run, load: Load, vocabulary: int, budget: Budget) -> Iterator[Rate]:
    """For each number of rows the rates of decode and of prompts; then of the mixed run, if that has sequences."""
    drawn = random.Random("rates")
    tokens, (short, long) = load.rate_prompt, load.rate_outputs

    def taken_s(rows: int, out: int) -> float:
        asked = [([drawn.randrange(3, vocabulary - 8) for _ in range(tokens)], out) for _ in range(rows)]
        began = time.perf_counter()
        run(asked)
        return time.perf_counter() - began

    for rows in load.rows:
        case = f"{rows} rows, prompts of {tokens}"
        if not budget.allows(case):
            continue
        taken_s(rows, long)  # kernels are compiled, graphs captured
        decode, prompts = [], []
        for _ in range(TRIES):
            alone_s, short_s, long_s = (taken_s(rows, out) for out in (1, short, long))
            prompts.append(rows * tokens / max(alone_s, 1e-9))
            decode.append(rows * (long - short) / max(long_s - short_s, 1e-9))
        yield Rate(case, "decode rate", decode)
        yield Rate(case, "prompt rate", prompts)
    case = f"{load.sequences} sequences"
    if load.sequences and budget.allows(case):
        yield Rate(case, "output rate", [mixed_rate(run, load, vocabulary)])


def mixed_rate(run: Run, load: Load, vocabulary: int) -> float:
    """Output tokens per second of the mixed run: once over other prompts of the same shape, which is not counted, then
    once over prompts that no cache knows."""
    run(load.mixed(vocabulary, seed=1))
    asked = load.mixed(vocabulary)
    began = time.perf_counter()
    run(asked)
    return sum(out for _, out in asked) / (time.perf_counter() - began)
