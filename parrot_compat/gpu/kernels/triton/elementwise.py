"""Norms and gated activations, a row of numbers at a time.

Computed in float32, rounded where `reference/elementwise.py` rounds, so that bfloat16 gives what Hugging Face's modules
give. Any number of rows; rows are contiguous.

The invariant: one row, one program: a row's numbers are the same bits whatever is beside it.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped"
# Triton has no types; what follows `@triton.jit` is its own language.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from parrot_compat.gpu.kernels import Activation, NormWeight
from parrot_compat.gpu.kernels.strips import padded

__all__ = ["ACTIVATIONS", "GATED_BLOCK", "add_norm", "gate", "gated", "norm", "norm_warps", "normalise"]

ACTIVATIONS: dict[Activation, int] = {"silu": 0, "gelu_tanh": 1, "gelu": 2}
GATED_BLOCK = 1024


@triton.jit
def normalise(
    x, added, total, weight, out, eps, WIDTH: tl.constexpr, PADDED: tl.constexpr, ADDS: tl.constexpr,
    ROUNDS_FIRST: tl.constexpr,
):  # fmt: skip
    """One program per row: total = x + added; out = total / sqrt(mean(total^2) + eps) * weight.  grid [rows].

    x, added, total, out [rows, WIDTH] of one dtype (`total` may be `x`; without ADDS it is x and not written);
    weight [WIDTH] float32. The quotient is rounded before it is multiplied if ROUNDS_FIRST.
    """
    at = tl.program_id(0).to(tl.int64) * WIDTH
    column = tl.arange(0, PADDED)
    is_column = column < WIDTH
    wide = tl.load(x + at + column, mask=is_column, other=0.0).to(tl.float32)
    if ADDS:
        wide += tl.load(added + at + column, mask=is_column, other=0.0).to(tl.float32)
        wide = wide.to(x.dtype.element_ty).to(tl.float32)
        tl.store(total + at + column, wide.to(x.dtype.element_ty), mask=is_column)
    wide = wide * tl.math.rsqrt(tl.sum(wide * wide, 0) / WIDTH + eps)
    if ROUNDS_FIRST:
        wide = wide.to(x.dtype.element_ty).to(tl.float32)
    scaled = wide * tl.load(weight + column, mask=is_column, other=0.0)
    tl.store(out + at + column, scaled.to(out.dtype.element_ty), mask=is_column)


@triton.jit
def gate(gate_up, out, INNER: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """One program per (row, BLOCK columns): out = activation(first half) * second half.  grid [rows, blocks].

    gate_up [rows, 2 INNER], out [rows, INNER] of one dtype; the activation is rounded before it is multiplied.
    KIND as in ACTIVATIONS:  silu x / (1 + e^-x);  gelu_tanh x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2;
    gelu x (1 + erf(x / sqrt 2)) / 2
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_column = column < INNER
    x = tl.load(gate_up + row * 2 * INNER + column, mask=is_column, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * INNER + INNER + column, mask=is_column, other=0.0).to(tl.float32)
    if KIND == 0:
        active = x / (1.0 + tl.exp(-x))
    elif KIND == 1:
        # (1 + tanh y) / 2 = 1 / (1 + e^-2y)
        active = x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    else:
        active = x * 0.5 * (1.0 + tl.math.erf(x * 0.7071067811865476))
    active = active.to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * INNER + column, (active * up).to(out.dtype.element_ty), mask=is_column)


def norm(x: Tensor, by: NormWeight) -> Tensor:
    """[..., dim]: the `norm` of `kernels.Kernels`."""
    x = x.contiguous()
    out = torch.empty_like(x)
    _normalise(x, None, out, by)
    return out


def add_norm(x: Tensor, y: Tensor, by: NormWeight) -> tuple[Tensor, Tensor]:
    """The `add_norm` of `kernels.Kernels`; writes into `x`."""
    assert x.is_contiguous() and y.is_contiguous() and x.shape == y.shape and x.dtype == y.dtype
    out = torch.empty_like(x)
    _normalise(x, y, out, by)
    return x, out


def norm_warps(width: int) -> int:
    return min(8, max(1, padded(width) // 512))


def _normalise(x: Tensor, added: Tensor | None, out: Tensor, by: NormWeight) -> None:
    width = x.shape[-1]
    assert by.weight.dtype == torch.float32 and by.weight.shape == (width,)
    if x.numel():
        normalise[(x.numel() // width,)](
            x, x if added is None else added, x, by.weight, out, by.eps, WIDTH=width, PADDED=padded(width),
            ADDS=added is not None, ROUNDS_FIRST=by.rounds_first, num_warps=norm_warps(width),
        )  # fmt: skip


def gated(gate_up: Tensor, activation: Activation) -> Tensor:
    """The `gated` of `kernels.Kernels`."""
    assert gate_up.is_contiguous()
    rows, both = gate_up.shape
    out = gate_up.new_empty(rows, both // 2)
    if rows:
        blocks = -(-both // 2 // GATED_BLOCK)
        gate[(rows, blocks)](gate_up, out, INNER=both // 2, KIND=ACTIVATIONS[activation], BLOCK=GATED_BLOCK)
    return out
