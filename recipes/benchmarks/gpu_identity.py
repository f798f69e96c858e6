"""The identity suite of the tests on a device: engines of every kind beside Hugging Face, scenario by scenario.

It needs the folder `tests` beside `recipes`. The invariant: an answer that differs, but for ties, fails its scenario,
and what a checkpoint's other scenarios found is counted all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .gpu_budget import Budget
from .gpu_cases import Cases
from .gpu_rows import ROOT, GpuRow, Where

if TYPE_CHECKING:  # they need not be here
    from tests.identity.measure import Lab
    from tests.identity.oracle import Comparison

__all__ = ["identity"]

FIRST = "mistral"
"""Windows are where a kernel errs most easily, and a budget leaves out the last."""


def identity(under: Path, device: torch.device, where: Where, budget: Budget, *, is_tiny: bool) -> Iterator[GpuRow]:
    """A case for each scenario, and behind those of a checkpoint its counts; of `is_tiny` one checkpoint."""
    if not (ROOT / "tests" / "identity" / "measure.py").exists() or find_spec("tests.identity") is None:
        budget.left_out.append("all of it, because the tests are not here")
        return
    # Late: they need not be here.
    from tests.identity.checkpoints import FAMILIES
    from tests.identity.measure import Lab
    from tests.identity.scenarios import SCENARIOS

    lab, cases = Lab(under / "identity", device.type), Cases("identity", device, where, budget)
    for shape in sorted(FAMILIES, key=lambda shape: shape != FIRST)[: 1 if is_tiny else None]:
        if not budget.allows(shape):
            continue
        compared: list[Comparison] = []
        for scenario in SCENARIOS:
            yield from cases.of(f"{shape} {scenario}", partial(_compare, lab, shape, scenario, compared))
        yield from _counts(shape, compared, len(SCENARIOS), where)
    cases.end()


def _compare(lab: Lab, shape: str, scenario: str, compared: list[Comparison]) -> Iterable[GpuRow]:
    """Into `compared`. A row for each number of each scenario would be hundreds of them: there are none."""
    with _one_thread():
        found = asyncio.run(lab.run(shape, scenario)).comparison
    compared.append(found)
    if differ := found.differences:
        told = "\n".join(map(str, differ))
        raise AssertionError(f"{len(differ)} of {found.answers} answers differ from Hugging Face's; the first: {told}")
    return ()


def _counts(shape: str, compared: list[Comparison], scenarios: int, where: Where) -> Iterator[GpuRow]:
    if not compared:
        return
    note = "" if len(compared) == scenarios else f"of {len(compared)} of {scenarios} scenarios"
    for metric, counts in {
        "answers": [each.answers for each in compared],
        "exact": [each.exact for each in compared],
        "that part at a tie": [len(each.ties) for each in compared],
        "differences": [len(each.differences) for each in compared],
    }.items():
        yield GpuRow.of(where, "identity", shape, "ours", metric, "1", [sum(counts)], note)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Models so small lose by more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
