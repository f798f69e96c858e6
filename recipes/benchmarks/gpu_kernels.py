"""The attention kernels on a device: right beside float64, and how near to what the device can do.

Steps are random keys over scattered pages. On a CPU, where the Triton kernels do not run, the same steps go through
the reference, so that everything but the kernels is tried anywhere.

The invariant: what is timed is a whole attention call of a prepared step, reduce included.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from parrot_compat.gpu.kernels import AttentionInputs
from parrot_compat.gpu.kernels.costs import DeviceCosts, gain_s
from parrot_compat.gpu.kernels.forest import ForestRow, SharedPrefix, find_shared
from parrot_compat.gpu.kernels.reference.attention import paged_attention
from parrot_compat.gpu.kernels.reference.forest import strip_attention
from parrot_compat.gpu.kernels.strips import HeadShape, plan_strips, row_shapes
from parrot_compat.gpu.kernels.table import choose
from parrot_compat.gpu.kernels.triton.tiles import tiling

from .gpu_budget import Budget
from .gpu_cases import Cases
from .gpu_rows import GpuRow, Where, times_s

__all__ = ["FULL", "TINY", "Sizes", "Step", "ceilings", "costs_of", "exactness", "kernels", "make_step"]

PAGE = 16
LLAMA = (32, 8, 128)
COLD_BYTES = 400 << 20
"""Keys and values to go round in: several times what a device's cache holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the cases are: `FULL` for a device, `TINY` to try the suite anywhere."""

    heads: tuple[int, int, int]
    rows: tuple[int, ...]
    shared: tuple[int, ...]
    private: tuple[int, ...]
    prompts: tuple[int, ...]
    tries: int


FULL = Sizes(
    heads=LLAMA, rows=(4, 8, 16, 32, 64, 128), shared=(512, 2048, 8192, 32768), private=(128, 512),
    prompts=(2048, 8192), tries=10,
)  # fmt: skip
TINY = Sizes(heads=(4, 2, 16), rows=(2, 3), shared=(32,), private=(16,), prompts=(24,), tries=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    inputs: AttentionInputs
    shared: tuple[SharedPrefix, ...]
    query: Tensor
    keys: Tensor
    values: Tensor

    @property
    def unique_bytes(self) -> int:
        """Keys and values of the pages that are in the step, each counted once."""
        pages = len(torch.unique(torch.cat(self.inputs.pages)))
        return 2 * pages * PAGE * self.keys[0].numel() * self.keys.element_size()


def make_step(
    rows: Sequence[tuple[int, int]], shared: int, heads: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> Step:
    """`rows`: (private keys, queries of them); all have the same `shared` keys before, a multiple of the page."""
    front = shared // PAGE
    private = [-(-keys // PAGE) for keys, _ in rows]
    # Drawn on the CPU, so that the same seed is the same step on every device.
    scattered = torch.randperm(front + sum(private), generator=torch.Generator().manual_seed(len(rows)))
    tables = [torch.cat([scattered[:front], own]) for own in scattered[front:].split(private)]
    ends = np.cumsum([0, *(queries for _, queries in rows)])
    slots = []
    for table, (keys, queries) in zip(tables, rows, strict=True):
        position = torch.arange(shared + keys - queries, shared + keys)
        slots.append(table[position // PAGE] * PAGE + position % PAGE)
    query_heads, kv_heads, dim = heads
    shape = (len(scattered) * PAGE, kv_heads, dim)
    lines = [ForestRow(pages=table.numpy(), shareable=shared) for table in tables]
    return Step(
        inputs=AttentionInputs(
            page_size=PAGE,
            slots=torch.cat(slots).to(device),
            query_starts=tuple(ends.tolist()),
            kv_lengths=tuple(shared + keys for keys, _ in rows),
            pages=tuple(table.to(device) for table in tables),
        ),
        shared=find_shared(lines, PAGE),
        query=torch.randn(int(ends[-1]), query_heads, dim, device=device, dtype=dtype),
        keys=torch.randn(shape, device=device, dtype=dtype),
        values=torch.randn(shape, device=device, dtype=dtype),
    )


def attention(step: Step, *, is_shared: bool, **options: float) -> Callable[[], Tensor]:
    """The call to time; tables are made on the first of them."""
    query, keys, values = step.query, step.keys, step.values
    scale = query.shape[2] ** -0.5
    if query.device.type == "cuda":
        from parrot_compat.gpu.kernels.triton.step import TritonStep, attend

        prepared = TritonStep(replace(step.inputs, shared=step.shared if is_shared else ()))
        return lambda: attend(query, keys, values, prepared, scale=scale, **options)
    if is_shared:
        return lambda: _by_strips(step, scale, **options)
    table = choose(query.device, query.dtype)
    ready = table.prepare(step.inputs)
    return lambda: table.attention(query, keys, values, ready, scale=scale, **options)


def timed(step: Step, device: torch.device, tries: int, *, is_shared: bool) -> list[float]:
    """Seconds of one call. On a device many calls are one CUDA graph, each on its own copy of keys and values: neither
    the host nor a cache that no model would find so warm is in the numbers."""
    if device.type != "cuda":
        return times_s(attention(step, is_shared=is_shared), device, tries)
    size = step.keys.nbytes + step.values.nbytes
    copies = max(2, min(24, -(-COLD_BYTES // size)))
    sets = [replace(step, keys=step.keys.clone(), values=step.values.clone()) for _ in range(copies)]
    calls = [attention(each, is_shared=is_shared) for each in sets]
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return [taken / copies for taken in times_s(graph.replay, device, tries)]


def _by_strips(step: Step, scale: float, **options: float) -> Tensor:
    shape = head_shape(step)
    plan = plan_strips(row_shapes(step.inputs), PAGE, tiling(shape, 1), step.shared)
    pages = torch.cat(step.inputs.pages)
    return strip_attention(step.query, step.keys, step.values, plan, pages, PAGE, scale=scale, **options)[0]


def head_shape(step: Step) -> HeadShape:
    return HeadShape(
        heads=step.query.shape[1], kv_heads=step.keys.shape[1], dim=step.query.shape[2],
        element_bytes=step.query.element_size(),
    )  # fmt: skip


# ---- right -------------------------------------------------------------------------------------------------

ALLOWED = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 2e-5}
"""Largest difference to float64 of results whose numbers are about 1. What is served most comes first: a budget leaves
out the last."""


def exactness(sizes: Sizes, cases: Cases) -> Iterator[GpuRow]:
    private = max(sizes.private)
    mixes = {
        "decode": ([(private + 3 * number, 1) for number in range(sizes.rows[0])], 0),
        "prefill": ([(sizes.prompts[0] // 4, sizes.prompts[0] // 4), (private, private // 2)], 0),
        "forest": ([(private + number, 1) for number in range(sizes.rows[0])], sizes.shared[0]),
    }
    options: list[dict[str, float]] = [{}, {"window": 20}, {"soft_cap": 5.0}]
    for dtype, (name, (rows, shared)), option in product(ALLOWED, mixes.items(), options):
        case = " ".join([name, str(dtype).removeprefix("torch."), *option])
        made = partial(make_step, rows, shared, sizes.heads, dtype, cases.device)
        yield from cases.of(case, partial(_beside_float64, case, made, option, cases.where))


def _beside_float64(case: str, made: Callable[[], Step], option: dict[str, float], where: Where) -> Iterator[GpuRow]:
    step = made()
    out = attention(step, is_shared=step.shared != (), **option)()
    # One row after another in float64, by the specification.
    wide = [tensor.cpu().double() for tensor in (step.query, step.keys, step.values)]
    inputs = AttentionInputs(
        page_size=PAGE, slots=step.inputs.slots.cpu(), query_starts=step.inputs.query_starts,
        kv_lengths=step.inputs.kv_lengths, pages=tuple(pages.cpu() for pages in step.inputs.pages),
    )  # fmt: skip
    scale = step.query.shape[2] ** -0.5
    expected = paged_attention(*wide, inputs, scale=scale, **option)  # type: ignore[arg-type]
    error = (out.cpu().double() - expected).abs().max().item()
    yield GpuRow.of(where, "exactness", case, "ours", "largest difference to float64", "1", [error])
    if not error <= (allowed := ALLOWED[step.query.dtype]):
        raise AssertionError(f"{case}: differs from float64 by {error}; allowed is {allowed}")


# ---- fast --------------------------------------------------------------------------------------------------


def ceilings(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """(bytes/s, multiplications and additions /s), in a process of its own."""
    command = [sys.executable, "-m", "recipes.benchmarks.ceilings", "--device", device.type]
    said = subprocess.run([*command, "--dtype", str(dtype).removeprefix("torch.")], capture_output=True, text=True)
    if said.returncode:
        raise RuntimeError(f"the device's limits could not be measured: {said.stderr.strip()[-300:]}")
    found = json.loads(said.stdout.strip().splitlines()[-1])
    return found["bytes_per_s"], found["flops"]


def kernels(sizes: Sizes, device: torch.device, where: Where, budget: Budget) -> Iterator[GpuRow]:
    if not budget.allows("all kernels"):
        return
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    bytes_per_s, products_per_s = ceilings(device, dtype)
    row = partial(GpuRow.of, where, "kernels")
    yield row("ceiling", "torch", "copy or read", "bytes/s", [bytes_per_s])
    yield row("ceiling", "torch", "matrix product", "flop/s", [products_per_s])
    heads, _, dim = sizes.heads
    for prompt in sizes.prompts:
        if not budget.allows(f"prefill {prompt}"):
            continue
        step = make_step([(prompt, prompt)], 0, sizes.heads, dtype, device)
        taken = timed(step, device, sizes.tries, is_shared=False)
        work = 2 * heads * prompt * (prompt + 1) * dim
        yield row(f"prefill {prompt}", "ours", "share of products", "1", [work / t / products_per_s for t in taken])
    for shared, private, rows in product(sizes.shared, sizes.private, sizes.rows):
        case = f"decode {rows} rows {shared} shared {private} private"
        if not budget.allows(case):
            continue
        step = make_step([(private, 1)] * rows, shared, sizes.heads, dtype, device)
        apart = timed(step, device, sizes.tries, is_shared=False)
        together = timed(step, device, sizes.tries, is_shared=True)
        yield row(case, "apart", "time", "s", apart)
        yield row(case, "together", "time", "s", together)
        yield row(case, "together", "speedup", "ratio", [a / b for a, b in zip(apart, together, strict=True)])
        all_bytes = sum(step.inputs.kv_lengths) * head_shape(step).token_bytes
        yield row(case, "apart", "KV bytes asked for / unique", "1", [all_bytes / step.unique_bytes])
        yield row(case, "apart", "share of memory rate", "1", [all_bytes / t / bytes_per_s for t in apart])
        unique = [step.unique_bytes / t / bytes_per_s for t in together]
        yield row(case, "together", "share of memory rate, unique bytes", "1", unique)


def costs_of(
    rows: Sequence[GpuRow], sizes: Sizes, dtype: str, cache_bytes: int, launch_s: float, processors: int
) -> DeviceCosts:
    """The cost model's numbers out of a run of `kernels`: the best rates seen where each of them is what limits, and as
    the cost of one more kernel the largest gain that was promised to a case which then was slower together."""
    rows = [row for row in rows if row.part == "kernels"]
    found = {(row.case, row.system, row.metric): row for row in rows}
    memory = found["ceiling", "torch", "copy or read"].p50
    apart = [row for row in rows if row.metric == "share of memory rate"]
    heads, _, dim = sizes.heads
    shared, private, most = max(sizes.shared), min(sizes.private), max(sizes.rows)
    longest = found[f"decode {most} rows {shared} shared {private} private", "together", "time"].least
    costs = DeviceCosts(
        device=rows[0].device,
        dtype=dtype,
        memory_bytes_per_s=memory,
        cache_bytes_per_s=max(memory, memory * max(row.most for row in apart)),
        cache_bytes=cache_bytes,
        products_per_s=4 * most * heads * shared * dim / longest,
        launch_s=launch_s,
        versions=rows[0].versions,
        commit=rows[0].commit,
        date=rows[0].date,
    )
    query_heads, kv_heads, dim = sizes.heads
    shape = HeadShape(heads=query_heads, kv_heads=kv_heads, dim=dim, element_bytes=2 if dtype == "bfloat16" else 4)
    strips = tiling(shape, processors).shared_strips
    slower = [row.case.split() for row in rows if row.metric == "speedup" and row.p50 < 1.0]
    broken = [gain_s(int(case[1]), int(case[3]), shape, costs, strips) for case in slower]
    return replace(costs, launch_s=max([launch_s, *broken]))
