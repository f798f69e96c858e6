"""How large the tiles of the attention kernel are: stored choices, nothing is searched at start.

The invariant: a tile follows from the model's shape and dtype alone, so the same model is always computed in the same
order, whatever is in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from parrot_compat.gpu.kernels.strips import HeadShape, Tiling

__all__ = ["MAX_DIM", "SPLIT_KEYS", "Kind", "Tile", "tile", "tiling"]

Kind = Literal["direct", "private", "shared"]

MAX_DIM = 256
SPLIT_KEYS = 256
"""Four steps of 64 keys: one sequence of 8K tokens and 8 kv heads gives 256 programs, more than any device has
processors, and the partials of a strip are 3 % of the bytes it reads at 4 heads to a kv head."""
SHARED_PROGRAMS = 2
"""Programs for each processor that the shared strips of a step should make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    rows: int
    """Heads of a group x queries. The product needs 16; from 64 on Hopper has its wide instructions."""
    keys: int
    warps: int
    stages: int
    """Loads in flight, in steps of `keys`."""


# (kind, bytes of an element, is the head wide: more than 128). The largest that spill no registers on sm_80, 90, 100.
_TILES: dict[tuple[Kind, int, bool], Tile] = {
    ("direct", 2, False): Tile(rows=128, keys=64, warps=8, stages=3),
    ("direct", 2, True): Tile(rows=64, keys=64, warps=8, stages=2),
    ("private", 2, False): Tile(rows=16, keys=64, warps=4, stages=2),
    ("private", 2, True): Tile(rows=16, keys=32, warps=4, stages=3),
    ("shared", 2, False): Tile(rows=64, keys=64, warps=8, stages=3),
    ("shared", 2, True): Tile(rows=64, keys=32, warps=8, stages=2),
    # float32 is multiplied exactly, which no tensor core does: small tiles, held in registers.
    ("direct", 4, False): Tile(rows=32, keys=16, warps=8, stages=2),
    ("direct", 4, True): Tile(rows=16, keys=16, warps=8, stages=2),
    ("private", 4, False): Tile(rows=16, keys=16, warps=8, stages=2),
    ("private", 4, True): Tile(rows=16, keys=16, warps=8, stages=2),
    ("shared", 4, False): Tile(rows=32, keys=16, warps=8, stages=2),
    ("shared", 4, True): Tile(rows=16, keys=16, warps=8, stages=2),
}


def tile(kind: Kind, shape: HeadShape) -> Tile:
    stored = _TILES[kind, shape.element_bytes, shape.dim > 128]
    rows = max(stored.rows, shape.group)  # one query's heads are never cut
    return Tile(rows=rows, keys=stored.keys, warps=stored.warps, stages=stored.stages)


def tiling(shape: HeadShape, processors: int, *, deterministic: bool = False) -> Tiling:
    """`processors`: streaming multiprocessors of the device. `deterministic`: every row is direct, whether it is a
    prompt's chunk or decodes: one kind of strip, one order of sums."""
    queries = {kind: tile(kind, shape).rows // shape.group for kind in ("direct", "private", "shared")}
    return Tiling(
        direct_queries=queries["direct"],
        private_queries=0 if deterministic else queries["private"],
        shared_queries=queries["shared"],
        split_keys=SPLIT_KEYS,
        shared_strips=max(1, SHARED_PROGRAMS * processors // shape.kv_heads),
    )
