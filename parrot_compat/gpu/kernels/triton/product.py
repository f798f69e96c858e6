"""Products with weights in one fixed order: a row's bits do not hang on how many rows there are.

  out[m, n] = sum_k x[m, k] * weight[n, k] + bias[n]          summed in float32, in steps of BLOCK_K from k = 0 on

A library's product chooses its tiles, and with them its order of sums, by the number of rows. This one has a single
tile for all, which costs speed: it is for `deterministic` engines.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped"
# Triton has no types; what follows `@triton.jit` is its own language.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["TILE", "fixed_linear", "multiply", "tile_of"]

TILE = {2: (64, 64, 64, 4, 4), 4: (32, 32, 32, 4, 2)}
"""By the bytes of an element: BLOCK_M, BLOCK_N, BLOCK_K, warps, stages. float32 is multiplied exactly, in registers."""


@triton.jit(do_not_specialize=["rows"])
def multiply(
    x, weight, bias, out, rows, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program per (BLOCK_M rows, BLOCK_N columns).  grid [ceil(COLUMNS / BLOCK_N), ceil(rows / BLOCK_M)].

    x [rows, WIDTH], weight [COLUMNS, WIDTH], bias [COLUMNS], out [rows, COLUMNS], all of one dtype
    """
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    inner = tl.arange(0, BLOCK_K)
    is_row, is_column = row < rows, column < COLUMNS
    left = x + row.to(tl.int64)[:, None] * WIDTH + inner[None, :]
    right = weight + column.to(tl.int64)[:, None] * WIDTH + inner[None, :]
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for at in range(0, WIDTH, BLOCK_K):
        known = at + inner < WIDTH
        a = tl.load(left + at, mask=is_row[:, None] & known[None, :], other=0.0)  # [BLOCK_M, BLOCK_K]
        b = tl.load(right + at, mask=is_column[:, None] & known[None, :], other=0.0)  # [BLOCK_N, BLOCK_K]
        sums = tl.dot(a, tl.trans(b), sums, input_precision="ieee")
    if HAS_BIAS:
        sums += tl.load(bias + column, mask=is_column, other=0.0).to(tl.float32)[None, :]
    target = out + row.to(tl.int64)[:, None] * COLUMNS + column[None, :]
    tl.store(target, sums.to(out.dtype.element_ty), mask=is_row[:, None] & is_column[None, :])


def tile_of(element_bytes: int) -> dict[str, int]:
    """The constants of `multiply` and its launch."""
    rows, columns, inner, warps, stages = TILE[element_bytes]
    return {"BLOCK_M": rows, "BLOCK_N": columns, "BLOCK_K": inner, "num_warps": warps, "num_stages": stages}


def fixed_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[rows, width] → [rows, columns]; weight [columns, width]."""
    rows, width = x.shape
    columns = weight.shape[0]
    assert x.is_contiguous() and weight.is_contiguous() and weight.shape[1] == width and x.dtype == weight.dtype
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    if rows:
        tile = tile_of(x.element_size())
        grid = (-(-columns // tile["BLOCK_N"]), -(-rows // tile["BLOCK_M"]))
        multiply[grid](
            x, weight, weight if bias is None else bias, out, rows, WIDTH=width, COLUMNS=columns,
            HAS_BIAS=bias is not None, **tile,
        )  # fmt: skip
    return out
