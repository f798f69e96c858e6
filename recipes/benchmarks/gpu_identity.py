"""The identity suite of the tests on a device: engines of every kind beside Hugging Face, checkpoint by checkpoint.

It needs the folder `tests` beside `recipes`. The invariant: an answer that differs, but for ties, is an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from .gpu_budget import Budget
from .gpu_cases import Cases
from .gpu_rows import ROOT, GpuRow, Where

__all__ = ["identity"]

CHECKPOINT_S = 20.0
"""About how long the engines of one take, and transformers beside them on the CPU."""


def identity(under: Path, device: torch.device, where: Where, budget: Budget, *, is_tiny: bool) -> Iterator[GpuRow]:
    """Counts of each checkpoint; of `is_tiny` one."""
    if not (ROOT / "tests" / "identity" / "report.py").exists() or find_spec("tests.identity") is None:
        budget.left_out.append("all of it, because the tests are not here")
        return
    # Late: they need not be here.
    from tests.identity.checkpoints import FAMILIES

    cases = Cases("identity", device, where, budget)
    for shape in [*FAMILIES][: 1 if is_tiny else None]:
        rows = partial(_checkpoint, shape, under / "identity", device, where)
        yield from cases.of(shape, rows, 0.0 if is_tiny else CHECKPOINT_S)
    cases.end()


def _checkpoint(shape: str, under: Path, device: torch.device, where: Where) -> Iterator[GpuRow]:
    from tests.identity.report import report

    with _one_thread():
        counts = asyncio.run(report(under, 0, device.type, [shape]))
    row = partial(GpuRow.of, where, "identity", shape, "ours")
    yield row("answers", "1", [counts.answers])
    yield row("exact", "1", [counts.exact])
    yield row("that part at a tie", "1", [len(counts.ties)])
    yield row("differences", "1", [len(counts.differences)])
    if found := counts.differences:
        raise AssertionError(f"{len(found)} answers differ from Hugging Face's; the first: {found[0]}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Models so small lose by more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
