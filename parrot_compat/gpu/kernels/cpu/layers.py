"""All layers of a step in one call: no Python, and no threads that fall asleep, between its kernels.

It knows how layers.cpp is told of weights, caches and a step; nothing of families or batches. It is there where every
product of the layers is one of our own (`product`). Elsewhere the decoder goes from kernel to kernel itself.

The invariant: the same bits as kernel by kernel.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from parrot_compat.gpu.kernels import NormWeight, Positions
from parrot_compat.gpu.kernels.cpu.build import library
from parrot_compat.gpu.kernels.cpu.product import FEW, FewRows
from parrot_compat.gpu.kernels.cpu.table import ACTIVATIONS, FORMATS, CpuStep

__all__ = ["LayersAtOnce", "layers_at_once"]

TILE = 32
"""Most tokens that one thread takes through a layer at a time: what lies between its products fits its second cache."""

_P, _L, _F, _I = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int32


class _Norm(ctypes.Structure):
    _fields_ = (("weight", _P), ("eps", _F), ("rounds_first", _I))


class _Product(ctypes.Structure):
    _fields_ = (("weight", _P), ("bias", _P), ("out", _L), ("into", _L), ("block", _L))


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Norm) for name in ("before_attention", "query", "key", "after_attention", "before_mlp", "after_mlp")),
        *((name, _Product) for name in ("qkv", "output", "gate_up", "down")),
        *((name, _P) for name in ("keys", "values")),
        *((name, _L) for name in ("rope", "window")),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, _L) for name in ("format", "layers", "heads", "kv_heads", "dim", "width", "inner")),
        *((name, _L) for name in ("activation", "in_blocks")),
        *((name, _F) for name in ("scale", "cap")),
        ("layer", _P),
    )


class _Rope(ctypes.Structure):
    _fields_ = (*((name, _P) for name in ("positions", "cos", "sin")), ("half", _L))


class _Now(ctypes.Structure):
    _fields_ = (
        *((name, _L) for name in ("tokens", "rows", "page_size", "threads", "tile")),
        *((name, _P) for name in ("starts", "lengths", "pages", "slots", "rope")),
        *((name, _P) for name in ("x", "mixed", "query", "attended", "normed", "qkv", "gate_up", "gated")),
        *((name, _P) for name in ("begins", "wanted")),
        ("wanted_tokens", _L),
        ("last", _P),
    )


def layers_at_once(plan: Any, layers: Sequence[Any], *, in_blocks: bool = False) -> LayersAtOnce | None:
    """Of a decoder (`models.plan.DecoderPlan`, `models.decoder.Layer`). `None`: not all of its products are our own.
    `in_blocks`: as of `cpu_kernels`."""
    found = library()
    linears = [linear for layer in layers for linear in (layer.qkv, layer.output, layer.gate_up, layer.down)]
    if found is None or not all(isinstance(getattr(linear, "few", None), FewRows) for linear in linears):
        return None
    return LayersAtOnce(found, plan, layers, in_blocks=in_blocks)


class LayersAtOnce:
    """One model's. It writes into buffers of its own, so one step is over before the next one begins."""

    def __init__(self, found: ctypes.CDLL, plan: Any, layers: Sequence[Any], *, in_blocks: bool) -> None:
        self._function = found.parrot_layers
        found.parrot_most_tokens.argtypes, found.parrot_most_tokens.restype = (_L,), _L
        self.most_tokens: int = found.parrot_most_tokens(FEW)
        self._function.argtypes, self._function.restype = (_P, _P), None
        self._plan = plan
        self._in_blocks = in_blocks
        self._layers = layers
        self._ropes = tuple(dict.fromkeys(layer.plan.rope for layer in layers))
        self._dtype: torch.dtype = layers[0].qkv.few.dtype
        queries = plan.heads * plan.dim
        self._widths = (plan.hidden, queries, queries)
        """Of `mixed`, `query` and `attended`, which all tokens have."""
        self._between = (plan.hidden, queries + 2 * plan.kv_heads * plan.dim, 2 * plan.inner, plan.inner)
        """Of `normed`, `qkv`, `gate_up` and `gated`, which are used again by other tokens where these are many."""
        self._buffers: list[Tensor] = []
        self._caches: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None
        self._rows: Any = None
        self._model: Any = None

    def __call__(
        self,
        x: Tensor,
        step: CpuStep,
        places: Mapping[str, Positions],
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        wanted: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if self._caches is None or self._caches[0] is not keys or self._caches[1] is not values:
            self._describe(keys, values)
        tokens, threads = x.shape[0], torch.get_num_threads()
        tile = _tile(tokens, threads)
        buffers = self._room(tokens, threads)
        ropes = (_Rope * len(self._ropes))(*(_rope(places[kind]) for kind in self._ropes))
        starts, line = step.numbers.ctypes.data, step.numbers.strides[0]
        now = _Now(
            tokens, step.rows, step.inputs.page_size, threads, tile,
            starts, starts + line, starts + 2 * line, step.inputs.slots.data_ptr(), ctypes.addressof(ropes),
            x.data_ptr(), *(buffer.data_ptr() for buffer in buffers),
        )  # fmt: skip
        last = x
        if wanted is not None and tile:
            last = x.new_empty(len(wanted), x.shape[1])
            now.begins, now.wanted, now.wanted_tokens = starts + 3 * line, wanted.data_ptr(), len(wanted)
            now.last = last.data_ptr()
        self._function(ctypes.addressof(self._model), ctypes.addressof(now))
        mixed = buffers[0][: len(last)]
        if wanted is None or tile:
            return last, mixed
        return last.index_select(0, wanted), mixed.index_select(0, wanted)

    def _room(self, tokens: int, threads: int) -> list[Tensor]:
        """Buffers for that many tokens at least: those of the largest step so far."""
        between = max(FEW, threads * TILE)
        if not self._buffers or self._buffers[0].shape[0] < tokens or self._buffers[-1].shape[0] < between:
            rows = max(tokens, FEW)
            self._buffers = [torch.empty(rows, width, dtype=self._dtype) for width in self._widths]
            self._buffers += [torch.empty(between, width, dtype=self._dtype) for width in self._between]
        return self._buffers

    def _describe(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        plan = self._plan
        self._caches = keys, values
        self._rows = (_Layer * len(self._layers))(
            *(self._layer(*each) for each in zip(self._layers, keys, values, strict=True))
        )
        self._model = _Model(
            FORMATS[self._dtype], len(self._layers), plan.heads, plan.kv_heads, plan.dim, plan.hidden, plan.inner,
            ACTIVATIONS[plan.activation], self._in_blocks, plan.scale, plan.soft_cap or 0.0,
            ctypes.addressof(self._rows),
        )  # fmt: skip

    def _layer(self, layer: Any, keys: Tensor, values: Tensor) -> _Layer:
        attention_norms = (layer.before_attention, layer.query_norm, layer.key_norm, layer.after_attention)
        return _Layer(
            *(_norm(norm) for norm in (*attention_norms, layer.before_mlp, layer.after_mlp)),
            *(_product(linear.few) for linear in (layer.qkv, layer.output, layer.gate_up, layer.down)),
            keys.data_ptr(), values.data_ptr(), self._ropes.index(layer.plan.rope), layer.plan.window or 0,
        )  # fmt: skip


def _tile(tokens: int, threads: int) -> int:
    """Tokens that a thread takes at a time, so that all threads have equally many turns. 0: too few for that."""
    if tokens <= FEW:
        return 0
    turns = -(-tokens // (threads * TILE)) * threads
    return -(-tokens // turns)


def _norm(by: NormWeight | None) -> _Norm:
    return _Norm(None, 0.0, 0) if by is None else _Norm(by.weight.data_ptr(), by.eps, by.rounds_first)


def _product(by: FewRows) -> _Product:
    return _Product(by.weight, by.bias, by.out, by.into, by.block)


def _rope(at: Positions) -> _Rope:
    return _Rope(at.positions.data_ptr(), at.cos.data_ptr(), at.sin.data_ptr(), at.cos.shape[1])
