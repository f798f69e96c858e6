"""The costs that are shipped for a device, beside the rows that they come from: where from, and what they decide."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from parrot_compat.gpu.kernels.costs import DeviceCosts, device_costs, gain_s, worth_sharing
from parrot_compat.gpu.kernels.forest import SharedPrefix
from parrot_compat.gpu.kernels.strips import HeadShape
from parrot_compat.gpu.kernels.triton.tiles import tiling
from recipes.benchmarks.gpu_rows import RESULTS

DEVICE, PROCESSORS = "NVIDIA H100 80GB HBM3", 132
PAGE = 16
LLAMA = HeadShape(heads=32, kv_heads=8, dim=128, element_bytes=2)
STRIPS = tiling(LLAMA, PROCESSORS).shared_strips


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One case of `gpu_suite --part kernels`: rows that share a prefix."""

    rows: int
    shared: int
    private: int
    speedup: float
    """Together, over apart."""

    def is_shared(self, costs: DeviceCosts | None) -> bool:
        """Whether an engine with these costs would."""
        prefix = SharedPrefix(rows=tuple(range(self.rows)), first_page=0, end_page=self.shared // PAGE)
        return worth_sharing([prefix], PAGE, LLAMA, costs, STRIPS) != ()


def shipped() -> DeviceCosts:
    found = device_costs(DEVICE, "bfloat16")
    assert found is not None
    return found


def rows(metric: str) -> Iterator[dict[str, str]]:
    with (RESULTS / "gpu.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if (row["device"], row["part"], row["metric"]) == (DEVICE, "kernels", metric):
                yield row


def measured() -> list[Measured]:
    found = []
    for row in rows("speedup"):
        _, count, _, shared, _, private, _ = row["case"].split()
        found.append(Measured(rows=int(count), shared=int(shared), private=int(private), speedup=float(row["p50"])))
    return found


def mistakes(costs: DeviceCosts | None) -> tuple[list[Measured], list[Measured]]:
    """(shared, and slower together; left apart, and faster together), those with fewer rows first."""
    cases = sorted(measured(), key=lambda case: (case.rows, case.shared, case.private))
    losses = [case for case in cases if case.is_shared(costs) and case.speedup < 1.0]
    return losses, [case for case in cases if not case.is_shared(costs) and case.speedup >= 1.0]


def test_no_case_that_was_slower_together_is_shared_and_two_that_were_faster_are_not() -> None:
    assert len(measured()) == 48
    losses, refused = mistakes(shipped())
    assert losses == []
    assert [(case.rows, case.shared, case.private) for case in refused] == [(64, 512, 128), (128, 512, 128)]


def test_without_costs_no_case_that_was_slower_would_be_shared_either_and_eight_gains_would_be_missed() -> None:
    losses, refused = mistakes(None)
    assert losses == []
    assert len(refused) == 8 and max(case.speedup for case in refused) < 2.0


def test_rates_that_are_measured_in_seconds_would_do_worse_than_the_rule_without_any() -> None:
    """Why a device without a line is not measured when it is first met: of a copy, a matrix product and a launch alone
    the model expects too much of few rows. What it must promise is known only where cases were tried and lost."""
    [product] = rows("matrix product")
    memory = shipped().memory_bytes_per_s
    quick = replace(shipped(), cache_bytes_per_s=memory, products_per_s=float(product["p50"]), launch_s=5e-6)
    losses, _ = mistakes(quick)
    assert len(losses) == 10 and min(case.speedup for case in losses) < 0.6


def test_every_number_of_the_shipped_line_is_reckoned_from_rows_of_its_commit() -> None:
    costs = shipped()
    assert {(row["commit"], row["date"]) for row in rows("speedup")} == {(costs.commit, costs.date)}
    [copy] = rows("copy or read")
    assert costs.memory_bytes_per_s == float(copy["p50"])
    best = max(float(row["most"]) for row in rows("share of memory rate"))
    assert costs.cache_bytes_per_s == pytest.approx(best * costs.memory_bytes_per_s)
    [longest] = [
        row
        for row in rows("time")
        if (row["case"], row["system"]) == ("decode 128 rows 32768 shared 128 private", "together")
    ]
    work = 4 * 128 * LLAMA.heads * 32_768 * LLAMA.dim
    assert costs.products_per_s == pytest.approx(work / float(longest["least"]))


def test_what_sharing_must_promise_is_the_most_that_was_promised_to_a_case_that_lost() -> None:
    costs = shipped()
    promised = [gain_s(case.rows, case.shared, LLAMA, costs, STRIPS) for case in measured() if case.speedup < 1.0]
    assert costs.launch_s == pytest.approx(max(promised), rel=1e-9)
    assert "launch_s" in costs.note and "0bc4fc1" in costs.note
