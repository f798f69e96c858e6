"""Products of a few rows with a weight that oneDNN has packed, straight from oneDNN's memory.

How oneDNN lays a weight out and in which order it adds is not promised. So every weight is tried when it is packed:
only where a product of random numbers comes out the same bits as oneDNN's own of many rows is this one used for few.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from parrot_compat.gpu.kernels.cpu.build import library
from parrot_compat.gpu.kernels.cpu.table import FORMATS

__all__ = ["FEW", "FewRows", "few_rows"]

PackedProduct = Callable[[Tensor, Tensor | None], Tensor]
"""oneDNN's, of a packed weight: (x, bias) → x w + bias"""

_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
BLOCKS = (1 << 30, 512, 1024, 2048, 256)
"""Lengths of the chains along K that were seen, the whole of it first."""
FEW = 64
"""Most rows; MOST_ROWS of product.cpp. Beyond, oneDNN is as fast."""


def few_rows(packed: Tensor, bias: Tensor | None, shape: tuple[int, int], many_rows: PackedProduct) -> FewRows | None:
    """x [at most FEW, in] → [rows, out], equal to `many_rows` bit for bit; `None` where there is none.

    `packed` is oneDNN's form of a weight [out, in]; `shape` is (out, in); `bias` is of the same dtype.
    """
    found, (out, into), dtype = library(), shape, packed.dtype
    if found is None or out % 64 or into % 2 or not found.parrot_has_product(FORMATS[dtype]):
        return None
    if torch.ops.mkldnn._nbytes(packed) != out * into * dtype.itemsize:
        return None
    # Rounding to bfloat16 hides the order of additions; with a bias that leaves only the last digits it shows.
    row = torch.randn(1, into, generator=torch.Generator().manual_seed(into)).to(dtype)
    tried = row.expand(FEW, -1).contiguous()
    rest = -many_rows(tried, None)[0]
    for block in BLOCKS:
        if all(
            torch.equal(FewRows(found, packed, less, shape, block)(tried[:7]), many_rows(tried, less)[:7])
            for less in (rest, bias)
        ):
            return FewRows(found, packed, bias, shape, block)
    return None


class FewRows:
    """One weight's product; it keeps alive what its addresses point to."""

    def __init__(
        self, found: ctypes.CDLL, packed: Tensor, bias: Tensor | None, shape: tuple[int, int], block: int
    ) -> None:
        self._function = found.parrot_product
        self._function.argtypes, self._function.restype = (_I, _P, _P, _P, _P, _L, _L, _L, _L, _I), None
        self._keep = packed, bias
        self.dtype = packed.dtype
        self.weight: int = torch.ops.mkldnn.data_ptr(packed)
        self.bias = None if bias is None else bias.data_ptr()
        self.out, self.into = shape
        self.block = block
        self._format = FORMATS[packed.dtype]

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        y = x.new_empty(rows, self.out)
        self._function(
            self._format, x.data_ptr(), self.weight, self.bias, y.data_ptr(), rows, self.out, self.into,
            self.block, torch.get_num_threads(),
        )  # fmt: skip
        return y
