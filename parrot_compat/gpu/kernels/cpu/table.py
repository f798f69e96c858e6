"""The table of the C++ kernels: tensors in, pointers on.

It knows argument lists; what is computed is in the .cpp files. The invariant: everything that is handed over is
contiguous and outlives the call.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from parrot_compat.gpu.kernels import Activation, AttentionInputs, Kernels, NormWeight, Positions
from parrot_compat.gpu.kernels.cpu.build import library

__all__ = ["ACTIVATIONS", "FORMATS", "CpuStep", "cpu_kernels"]

FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
ACTIVATIONS: dict[Activation, int] = {"silu": 0, "gelu_tanh": 1, "gelu": 2}

_P, _I, _L, _F = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
SIGNATURES = {
    "parrot_norm": (_I, _P, _P, _P, _P, _L, _L, _F, _I, _I),
    "parrot_gated": (_I, _P, _P, _L, _L, _I, _I),
    "parrot_rotate": (_I, _P, _L, _L, _L, _L, _L, _P, _P, _P, _P, _P, _F, _P, _F, _I, _P, _P, _P, _I),
    "parrot_attention": (_I, _P, _P, _P, _P, _L, _P, _P, _P, _P, _L, _L, _L, _L, _F, _L, _F, _L, _I),
}


@dataclass(frozen=True, slots=True)
class CpuStep:
    """A step as the kernels see it; the arrays are kept alive by it."""

    inputs: AttentionInputs
    numbers: np.ndarray
    """[4, rows + 1] int64: query starts, kv lengths, addresses of the page lists, first queries that are computed"""

    @property
    def rows(self) -> int:
        return len(self.inputs.kv_lengths)


def cpu_kernels(dtype: torch.dtype = torch.float32, *, in_blocks: bool = False) -> Kernels | None:
    """`None` where they cannot be built, or the compiler has no such numbers. `in_blocks`: attention computes a token
    that is alone in its row as it computes several, bit for bit, at the speed of one thread for each key/value head."""
    found = library()
    if found is None or not found.parrot_has_format(FORMATS[dtype]):
        return None
    for name, arguments in SIGNATURES.items():
        function = getattr(found, name)
        function.argtypes, function.restype = arguments, None
    calls = _Calls(found, in_blocks=in_blocks)
    return Kernels(
        name="c++",
        prepare=_prepare,
        for_tokens=_for_tokens,
        norm=calls.norm,
        add_norm=calls.add_norm,
        rotate=calls.rotate,
        attention=calls.attention,
        gated=calls.gated,
    )


def _prepare(inputs: AttentionInputs) -> CpuStep:
    numbers = np.zeros((4, len(inputs.query_starts)), dtype=np.int64)
    numbers[0] = inputs.query_starts
    numbers[1, :-1] = inputs.kv_lengths
    numbers[2, :-1] = [pages.data_ptr() for pages in inputs.pages]
    return CpuStep(inputs, numbers)


def _for_tokens(step: CpuStep, tokens: Tensor) -> CpuStep:
    numbers, places = step.numbers.copy(), tokens.numpy()
    starts = numbers[0]
    numbers[3, :-1] = np.diff(starts)  # none of a row that has none of them
    rows = np.searchsorted(starts, places, side="right") - 1
    np.minimum.at(numbers[3], rows, places - starts[rows])
    return CpuStep(step.inputs, numbers)


class _Calls:
    def __init__(self, found: ctypes.CDLL, *, in_blocks: bool) -> None:
        self._in_blocks = in_blocks
        self._norm = found.parrot_norm
        self._gated = found.parrot_gated
        self._rotate = found.parrot_rotate
        self._attention = found.parrot_attention

    def norm(self, x: Tensor, by: NormWeight) -> Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        self._normalise(x, None, out, by)
        return out

    def add_norm(self, x: Tensor, y: Tensor, by: NormWeight) -> tuple[Tensor, Tensor]:
        out = torch.empty_like(x)
        self._normalise(y, x, out, by)
        return x, out

    def _normalise(self, x: Tensor, added: Tensor | None, out: Tensor, by: NormWeight) -> None:
        width = x.shape[-1]
        self._norm(
            FORMATS[x.dtype], x.data_ptr(), None if added is None else added.data_ptr(), by.weight.data_ptr(),
            out.data_ptr(), x.numel() // width, width, by.eps, by.rounds_first, torch.get_num_threads(),
        )  # fmt: skip

    def gated(self, gate_up: Tensor, activation: Activation) -> Tensor:
        rows, both = gate_up.shape
        out = gate_up.new_empty(rows, both // 2)
        self._gated(
            FORMATS[gate_up.dtype], gate_up.data_ptr(), out.data_ptr(), rows, both // 2, ACTIVATIONS[activation],
            torch.get_num_threads(),
        )  # fmt: skip
        return out

    def rotate(
        self,
        qkv: Tensor,
        heads: int,
        key_cache: Tensor,
        value_cache: Tensor,
        step: CpuStep,
        at: Positions,
        query_norm: NormWeight | None,
        key_norm: NormWeight | None,
    ) -> Tensor:
        tokens, _, dim = qkv.shape
        query = qkv.new_empty(tokens, heads, dim)
        norm = query_norm or key_norm
        self._rotate(
            FORMATS[qkv.dtype], qkv.data_ptr(), tokens, heads, key_cache.shape[1], dim, at.cos.shape[1],
            at.positions.data_ptr(), at.cos.data_ptr(), at.sin.data_ptr(), step.inputs.slots.data_ptr(),
            None if query_norm is None else query_norm.weight.data_ptr(), 0.0 if norm is None else norm.eps,
            None if key_norm is None else key_norm.weight.data_ptr(), 0.0 if norm is None else norm.eps,
            norm is None or norm.rounds_first, key_cache.data_ptr(), value_cache.data_ptr(), query.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return query

    def attention(
        self,
        query: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        step: CpuStep,
        *,
        scale: float,
        window: int | None = None,
        soft_cap: float | None = None,
    ) -> Tensor:
        query = query.contiguous()
        out = torch.empty_like(query)
        _, heads, dim = query.shape
        starts = step.numbers.ctypes.data
        line = step.numbers.strides[0]
        self._attention(
            FORMATS[query.dtype], query.data_ptr(), key_cache.data_ptr(), value_cache.data_ptr(), out.data_ptr(),
            step.rows, starts, starts + line, starts + 2 * line, starts + 3 * line, step.inputs.page_size, heads,
            key_cache.shape[1], dim, scale, window or 0, soft_cap or 0.0, self._in_blocks, torch.get_num_threads(),
        )  # fmt: skip
        return out
