"""Does it pay to read a shared prefix once for all its rows? A cost model with a device's own measured numbers.

For a prefix that m rows read, in one layer, with b bytes of keys and values per token:

  t          keys of it that any of the rows sees: all, or those that the layer's window reaches from the nearest row
  r          keys that each row sees of it, added up: m t without a window
  apart_s    = t b / memory + (r - t) b / again          again: the cache's rate if t b fits into it, else the memory's
  together_s = max(t b / memory, 4 m heads t dim / products) + 2 m s heads (dim + 1) 4 / cache
               s = strips of the prefix: of the step's, its share by rows x keys; each leaves a float32 partial for
               every row, written once and read once
  gain_s     = apart_s / MARGIN - together_s

Rates are bytes/s and multiply-adds x 2 /s. All layers share the same prefixes, so a gain is that of the mean layer. A
prefix is shared if its gain is positive, and any is only if the gains of the step outweigh `launch_s`, what one more
kernel in each layer costs. On a device without measurements a prefix is shared where the rule of thumb says so:
r - t >= UNMEASURED_KEYS in the mean layer. A prefix that does not pay leaves its keys to the prefixes behind it, which
begin where it would have begun: a few words that all prompts have in common take nothing from those that have more.

It knows numbers, nothing of tensors or pages. The invariant: each prefix is judged by itself, with the keys that are
left to it: one that does not pay never switches another off. What is shared is again a forest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parrot_compat.gpu.kernels.forest import SharedPrefix
from parrot_compat.gpu.kernels.strips import HeadShape

__all__ = ["ALL_SEEN", "DeviceCosts", "Windows", "device_costs", "gain_s", "worth_sharing"]

Windows = Mapping[int | None, int]
"""How many keys back a query sees, in how many layers; `None`: all."""
ALL_SEEN: Windows = {None: 1}

MARGIN = 1.1
"""A gain below what timings scatter by is none."""
UNMEASURED_KEYS = 65_536
"""Key reads saved: 8 rows over 9K keys, 64 rows over 1K. Published measurements see clear wins from about there on."""
STORED = Path(__file__).parent / "devices.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCosts:
    """Of one device and dtype; written by `recipes/benchmarks/gpu_suite.py --part kernels`."""

    device: str
    """As the driver names it."""
    dtype: str
    memory_bytes_per_s: float
    cache_bytes_per_s: float
    cache_bytes: int
    products_per_s: float
    """Of the shared kernel: multiplications and additions."""
    launch_s: float
    """What sharing must promise to gain in a layer before it was seen to pay: one more kernel, and a device that its
    few strips do not fill."""
    versions: str
    commit: str
    """Of the code that was measured."""
    date: str
    note: str = ""
    """Which numbers are not of that run alone, and where they come from."""


def device_costs(device: str, dtype: str, stored: Path = STORED) -> DeviceCosts | None:
    """What was measured on a device of this name. float16 without a line of its own has that of bfloat16: its numbers
    are as many bytes, and tensor cores are assumed to multiply both at one rate, which has not been measured."""
    lines: list[dict[str, Any]] = json.loads(stored.read_text(encoding="utf-8"))
    found = {line["dtype"]: DeviceCosts(**line) for line in lines if line["device"] == device}
    return found.get("bfloat16" if dtype == "float16" and dtype not in found else dtype)


def worth_sharing(
    prefixes: Sequence[SharedPrefix],
    page_size: int,
    shape: HeadShape,
    costs: DeviceCosts | None,
    strips: int,
    *,
    windows: Windows = ALL_SEEN,
    starts: Sequence[int] = (),
) -> tuple[SharedPrefix, ...]:
    """Those of `prefixes`, parents before their children, that are read faster together. `strips`: of all shared
    prefixes of a step, `Tiling`'s. `starts`: by row, the position of its first query, which only layers with a window
    ask for."""
    if costs is None:
        return _chosen(prefixes, lambda one: float(_saved(one, page_size, windows, starts) >= UNMEASURED_KEYS))[0]
    measured = costs

    def gain(prefix: SharedPrefix) -> float:
        its_strips = strips * len(prefix.rows) / (work * page_size)
        return sum(
            share * gain_s(len(prefix.rows), keys, shape, measured, max(1, round(its_strips * keys)), apart=apart)
            for share, keys, apart in _reads(prefix, page_size, windows, starts)
        )

    work = _work(prefixes)
    kept, gained = _chosen(prefixes, gain)
    while kept and (among_kept := _work(kept)) < work:
        # All strips are theirs: they have more partials than they were charged.
        work = among_kept
        kept, gained = _chosen(prefixes, gain)
    return kept if gained > costs.launch_s else ()


def _work(prefixes: Sequence[SharedPrefix]) -> int:
    return sum(len(prefix.rows) * prefix.pages for prefix in prefixes)


def _chosen(
    prefixes: Sequence[SharedPrefix], gain: Callable[[SharedPrefix], float]
) -> tuple[tuple[SharedPrefix, ...], float]:
    """Those that gain something, with the keys that those before them have left, and what they gain together."""
    kept: list[SharedPrefix] = []
    gained = 0.0
    begins: dict[tuple[int, int], int] = {}  # by a row and where a prefix of it ends: what is not read together yet
    for prefix in prefixes:
        first = begins.get((prefix.rows[0], prefix.first_page), prefix.first_page)
        candidate = replace(prefix, first_page=first)
        worth = gain(candidate)
        if worth > 0:
            kept.append(candidate)
            gained, first = gained + worth, prefix.end_page
        begins |= {(row, prefix.end_page): first for row in prefix.rows}
    return tuple(kept), gained


def _saved(prefix: SharedPrefix, page_size: int, windows: Windows, starts: Sequence[int]) -> float:
    """Reads of a key, in the mean layer."""
    return sum(share * (apart - keys) for share, keys, apart in _reads(prefix, page_size, windows, starts))


def _reads(
    prefix: SharedPrefix, page_size: int, windows: Windows, starts: Sequence[int]
) -> Iterator[tuple[float, int, int]]:
    """(share of the layers, keys that any row sees, keys that the rows see added up), by window."""
    first, end = prefix.first_page * page_size, prefix.end_page * page_size
    for window, layers in windows.items():
        oldest = [first if window is None else max(first, starts[row] + 1 - window) for row in prefix.rows]
        seen = [max(0, end - each) for each in oldest]
        yield layers / sum(windows.values()), max(seen), sum(seen)


def gain_s(
    rows: int, keys: int, shape: HeadShape, costs: DeviceCosts, strips: int, *, apart: int | None = None
) -> float:
    """In one layer. `apart`: keys that `rows` see, added up; all see all of `keys` unless said. Negative: a loss."""
    read, asked = keys * shape.token_bytes, (rows * keys if apart is None else apart) * shape.token_bytes
    again = costs.cache_bytes_per_s if read <= costs.cache_bytes else costs.memory_bytes_per_s
    apart_s = read / costs.memory_bytes_per_s + (asked - read) / again
    products_s = 4 * rows * shape.heads * keys * shape.dim / costs.products_per_s
    partials_s = 2 * rows * min(strips, keys) * shape.heads * (shape.dim + 1) * 4 / costs.cache_bytes_per_s
    return apart_s / MARGIN - max(read / costs.memory_bytes_per_s, products_s) - partials_s
