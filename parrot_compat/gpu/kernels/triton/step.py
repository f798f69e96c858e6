"""The tables of one step on the device, and the calls of the attention kernels on them.

Host work of a step happens here, once for all layers: plan the strips, lay every table into one buffer, one transfer.
A buffer with room to spare (`Capacity.with_room`) keeps addresses and grids fixed while steps change: what a CUDA
graph needs. It knows nothing of layers, models or sequences.

The invariant: a launch covers the whole capacity; what is behind the plan's own entries is padding that does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parrot_compat.gpu.kernels import AttentionInputs
from parrot_compat.gpu.kernels.strips import (
    COLUMNS,
    HeadShape,
    Rows,
    StripPlan,
    Tiling,
    padded,
    plan_strips,
    row_shapes,
)
from parrot_compat.gpu.kernels.triton import attention as kernels
from parrot_compat.gpu.kernels.triton.tiles import MAX_DIM, Kind, tile, tiling

__all__ = ["Capacity", "Partials", "StripTables", "TritonStep", "attend", "device_tiling", "merge", "run_strips"]

MERGED_SLOTS = 8
"""Partials that the reduce has in flight."""
ALIGNED = 4
"""Tables begin at multiples of 16 bytes: the compiled kernel may then load them wide, and there is one of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Room of a `StripTables`, in entries of each table."""

    direct: int
    private: int
    shared: int
    tokens: int
    members: int
    split_tokens: int
    slots: int
    pages: int

    @classmethod
    def of(cls, plan: StripPlan, pages: int) -> Capacity:
        return cls(
            direct=len(plan.direct), private=len(plan.private), shared=len(plan.shared), tokens=len(plan.lengths),
            members=len(plan.members), split_tokens=len(plan.split_tokens), slots=plan.slots, pages=pages,
        )  # fmt: skip

    def with_room(self, rows: int) -> Capacity:
        """For a decode of at most `rows` rows: grids rounded up to a power of two or 1.5 times one, and what only takes
        memory to a power of four, so that few capacities serve all steps. Kinds of strips that do not occur stay away:
        their kernel is not launched at all."""
        return Capacity(
            direct=_roomy(self.direct), private=_roomy(self.private), shared=_roomy(self.shared), tokens=rows,
            members=_ample(self.members), split_tokens=rows if self.split_tokens else 0, slots=_ample(self.slots),
            pages=_ample(self.pages),
        )  # fmt: skip

    def holds(self, other: Capacity) -> bool:
        return all(getattr(self, item.name) >= getattr(other, item.name) for item in fields(self))


def _roomy(count: int) -> int:
    above = padded(max(count, 1))
    return 0 if count == 0 else above * 3 // 4 if above >= 4 and count <= above * 3 // 4 else above


def _ample(count: int) -> int:
    size = 1024
    while size < count:
        size *= 4
    return size


class Partials:
    """Scratch for the partials of a layer, merged before the next layer writes its own: one serves all steps."""

    def __init__(self) -> None:
        self._largest: tuple[Tensor, Tensor] | None = None

    def take(self, slots: int, heads: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """(out [slots, heads, dim], lse [slots, heads]), float32."""
        held = self._largest
        if held is None or held[0].shape[1:] != (heads, dim) or len(held[0]) < slots:
            out = torch.empty(slots, heads, dim, dtype=torch.float32, device=device)
            held = self._largest = out, out.new_empty(slots, heads)
        return held[0][:slots], held[1][:slots]


class StripTables:
    """A `StripPlan` and the packed page lists, on the device, in one int32 buffer of fixed places."""

    def __init__(self, capacity: Capacity, device: torch.device | str, partials: Partials | None = None) -> None:
        self.capacity = capacity
        self._partials = partials or Partials()
        self._taken: tuple[Tensor, Tensor] | None = None
        width = len(COLUMNS)
        sizes = {
            "direct": capacity.direct * width,
            "private": capacity.private * width,
            "shared": capacity.shared * width,
            "members": capacity.members,
            "lengths": capacity.tokens + 1,  # one token of padding, which has no keys and no partials
            "slot_starts": capacity.tokens + 2,
            "split_tokens": capacity.split_tokens,
            "pages": capacity.pages,
        }
        self._places: dict[str, slice] = {}
        end = 0
        for name, size in sizes.items():
            self._places[name] = slice(end, end + size)
            end += -(-size // ALIGNED) * ALIGNED
        self._host = torch.zeros(end, dtype=torch.int32, pin_memory=torch.device(device).type == "cuda")
        self._device = torch.zeros(end, dtype=torch.int32, device=device)
        self._copied = torch.Event(device) if torch.device(device).type == "cuda" else None

    def __getattr__(self, name: str) -> Tensor:
        places = object.__getattribute__(self, "_places")
        if name not in places:
            raise AttributeError(name)
        return self._device[places[name]]

    def load(self, plan: StripPlan, pages: Sequence[Tensor] | Rows) -> None:
        """Put a step in place of the last one. The launches that read the last one are on the same stream.

        `pages`: the rows' page lists, on the device, or packed on the host.
        """
        tokens = len(plan.lengths)
        if self._copied is not None:
            self._copied.synchronize()  # the last step may still be on its way out of the host's buffer
        flat = self._host.numpy()
        flat[:] = 0
        for name in ("direct", "private", "shared", "members", "lengths", "slot_starts", "split_tokens"):
            table: np.ndarray[Any, np.dtype[np.int32]] = getattr(plan, name)
            place = self._places[name]
            flat[place.start : place.start + table.size] = table.reshape(-1)
        starts, split = self._places["slot_starts"], self._places["split_tokens"]
        flat[starts.start + tokens + 1 : starts.stop] = plan.slots
        flat[split.start + len(plan.split_tokens) : split.stop] = self.capacity.tokens
        is_packed = isinstance(pages, np.ndarray)
        if is_packed:
            first = self._places["pages"].start
            flat[first : first + len(pages)] = pages
        self._device.copy_(self._host, non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        if not is_packed:
            packed = torch.cat([*pages])
            self.pages[: len(packed)].copy_(packed)

    def partials(self, heads: int, dim: int) -> tuple[Tensor, Tensor]:
        if self._taken is None:  # kept, because a CUDA graph over these tables has the addresses in it
            self._taken = self._partials.take(self.capacity.slots, heads, dim, self._device.device)
        return self._taken


class TritonStep:
    """A step as the attention of this table wants to know it; its strips are cut when the first layer asks."""

    def __init__(
        self, inputs: AttentionInputs, tables: StripTables | None = None, *, deterministic: bool = False
    ) -> None:
        """`tables`: of the step, for all layers, if they are there already."""
        self.inputs = inputs
        self._deterministic = deterministic
        self._given = tables
        self._tables: dict[HeadShape, StripTables] = {}

    def plan(self, shape: HeadShape) -> StripPlan:
        cut = device_tiling(shape, self.inputs.slots.device, deterministic=self._deterministic)
        return plan_strips(row_shapes(self.inputs), self.inputs.page_size, cut, self.inputs.shared)

    def tables(self, shape: HeadShape) -> StripTables:
        if self._given is not None:
            return self._given
        if shape not in self._tables:
            plan = self.plan(shape)
            capacity = Capacity.of(plan, sum(len(pages) for pages in self.inputs.pages))
            tables = self._tables[shape] = StripTables(capacity, self.inputs.slots.device)
            tables.load(plan, self.inputs.pages)
        return self._tables[shape]


def device_tiling(shape: HeadShape, device: torch.device, *, deterministic: bool = False) -> Tiling:
    return tiling(shape, _processors(device), deterministic=deterministic)


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def attend(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    step: TritonStep,
    /,
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    fuses: bool = True,
) -> Tensor:
    """The `attention` of `kernels.Kernels`; `fuses`: see `run_strips`."""
    shape = _shape(query, key_cache, value_cache)
    return run_strips(
        query, key_cache, value_cache, step.tables(shape), step.inputs.page_size, scale=scale, window=window,
        soft_cap=soft_cap, fuses=fuses,
    )[0]  # fmt: skip


def run_strips(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    tables: StripTables,
    page_size: int,
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    keeps_lse: bool = False,
    fuses: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """(out [tokens, heads, dim], lse [tokens, heads] float32, natural log, if it is kept).

    `fuses`: a product and the sum behind it may be rounded as one. With a mask between they are not, so a token's last
    bits then hang on which other tokens of its row are in the tile.
    """
    shape = _shape(query, key_cache, value_cache)
    out = torch.empty_like(query)
    lse = query.new_empty(query.shape[:2], dtype=torch.float32) if keeps_lse else None
    partial, partial_lse = tables.partials(shape.heads, shape.dim)
    capacity, dim_padded = tables.capacity, max(16, padded(shape.dim))
    kinds: tuple[tuple[Kind, int], ...] = (
        ("shared", capacity.shared), ("private", capacity.private), ("direct", capacity.direct)
    )  # fmt: skip
    for kind, strips in kinds:
        if not strips:
            continue
        size, direct = tile(kind, shape), kind == "direct"
        kernels.attend_strips[(strips * shape.kv_heads,)](
            query, key_cache, value_cache, getattr(tables, kind), tables.members, tables.lengths, tables.slot_starts,
            tables.pages, out if direct else partial, (lse if keeps_lse else out) if direct else partial_lse,
            scale, window or 0, soft_cap or 0.0,
            PAGE=page_size, HEADS=shape.heads, KV_HEADS=shape.kv_heads, DIM=shape.dim, DIM_PADDED=dim_padded,
            GROUP_PADDED=shape.group, ROWS=size.rows, KEYS=size.keys, DIRECT=direct, HAS_WINDOW=window is not None,
            HAS_CAP=soft_cap is not None, KEEPS_LSE=keeps_lse, num_warps=size.warps, num_stages=size.stages,
            enable_fp_fusion=fuses or window is not None,  # with a window all is masked, the same way
        )  # fmt: skip
    if capacity.split_tokens:
        kernels.merge_partials[(capacity.split_tokens * shape.heads,)](
            partial, partial_lse, tables.slot_starts, tables.split_tokens, out, lse if keeps_lse else partial_lse,
            HEADS=shape.heads, DIM=shape.dim, DIM_PADDED=dim_padded, SLOTS=MERGED_SLOTS, KEEPS_LSE=keeps_lse,
            num_warps=1,
        )  # fmt: skip
    return out, lse


def merge(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Merge two partial attentions over disjoint keys.  out_* [rows, heads, dim]; lse_* [rows, heads] float32, natural
    log.  Returns (out, lse)."""
    for given in (out_a, lse_a, out_b, lse_b):
        assert given.is_contiguous()
    assert out_a.shape == out_b.shape and lse_a.shape == lse_b.shape == out_a.shape[:2] and out_a.dtype == out_b.dtype
    out, lse = torch.empty_like(out_a), torch.empty_like(lse_a)
    rows, heads, dim = out_a.shape
    kernels.merge_pair[(rows * heads,)](
        out_a, lse_a, out_b, lse_b, out, lse, DIM=dim, DIM_PADDED=padded(dim), num_warps=1
    )
    return out, lse


def _shape(query: Tensor, key_cache: Tensor, value_cache: Tensor) -> HeadShape:
    """What the kernels rely on, checked where tensors come in."""
    _, heads, dim = query.shape
    _, kv_heads, key_dim = key_cache.shape
    assert query.is_contiguous() and key_cache.is_contiguous() and value_cache.is_contiguous()
    assert query.dtype == key_cache.dtype == value_cache.dtype, (query.dtype, key_cache.dtype, value_cache.dtype)
    assert key_cache.shape == value_cache.shape and key_dim == dim <= MAX_DIM and heads % kv_heads == 0
    return HeadShape(heads=heads, kv_heads=kv_heads, dim=dim, element_bytes=query.dtype.itemsize)
