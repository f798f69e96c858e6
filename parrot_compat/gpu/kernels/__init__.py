"""Contracts of the kernels; `reference` (float32 torch, the specification and the CPU path) implements them.

Layouts (row-major, contiguous):
  query, out   [tokens, heads, dim]        packed: the rows of a step one after another, no padding
  key, value   [tokens, kv_heads, dim]     of the step's own tokens
  cache        [slots, kv_heads, dim]      one layer's keys or values; slot = page * page_size + offset
`heads` is a multiple of `kv_heads` (GQA); head h reads kv head h // (heads // kv_heads).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from parrot_compat.gpu.kernels.forest import SharedPrefix

__all__ = ["Activation", "AllLayers", "AttentionInputs", "Kernels", "NormWeight", "Positions"]

Activation = Literal["silu", "gelu_tanh", "gelu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionInputs:
    """Where the rows of one step lie in the packed tokens and in the KV pages. Same for all layers."""

    page_size: int
    slots: Tensor
    """[tokens] int64: the slot that each token's key and value are written to."""
    query_starts: tuple[int, ...]
    """rows + 1 offsets into the packed tokens: row r has tokens query_starts[r] .. query_starts[r+1]-1."""
    kv_lengths: tuple[int, ...]
    """rows: keys that row r attends to, the step's own tokens included."""
    pages: tuple[Tensor, ...]
    """rows x [pages of the row] int64, covering at least kv_lengths[r] slots."""
    shared: tuple[SharedPrefix, ...] = ()
    """Pages that a kernel may read once for several rows. Whoever does not know how leaves it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormWeight:
    """A root-mean-square norm: x / rms(x), in float32, times `weight`."""

    weight: Tensor
    """[dim] float32"""
    eps: float
    rounds_first: bool
    """x / rms(x) is rounded to the dtype of x before it is multiplied (Llama's order; Gemma's is the other)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Where a step's tokens stand, for the rotary kernel. Same for all layers with the same rotary scaling."""

    positions: Tensor
    """[tokens] int64"""
    cos: Tensor
    """[positions known, rotated / 2], the dtype of the model"""
    sin: Tensor


class Attention(Protocol):
    def __call__(
        self,
        query: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        step: Any,
        /,
        *,
        scale: float,
        window: int | None = None,
        soft_cap: float | None = None,
    ) -> Tensor: ...


class Rotate(Protocol):
    def __call__(
        self,
        qkv: Tensor,
        heads: int,
        key_cache: Tensor,
        value_cache: Tensor,
        step: Any,
        at: Positions,
        query_norm: NormWeight | None,
        key_norm: NormWeight | None,
        /,
    ) -> Tensor: ...


class AllLayers(Protocol):
    most_tokens: int
    """Steps of more are faster kernel by kernel."""

    def __call__(
        self,
        x: Tensor,
        step: Any,
        places: Mapping[str, Positions],
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        wanted: Tensor | None,
        /,
    ) -> tuple[Tensor, Tensor]:
        """`x` [tokens, hidden], the embeddings, may be written into; `places` by rotary scaling; the caches by layer.
        `wanted` [n] int64: tokens, which `step` is for in the last layer; `None`: all. Gives what enters the last
        layer's MLP and what that adds to it, of these tokens, which is there until the next call."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """What a decoder needs beside products of matrices: one table of functions for each kind of device.

    All compute row by row: a token's numbers are the same bits whatever other tokens are in the step. The
    exception are rows that share a prefix, where a table `shares_prefixes`: summed in another order than alone.
    """

    name: str
    prepare: Callable[[AttentionInputs], Any]
    """What `rotate` and `attention` of this table want to know about a step; made once, used in all layers."""
    norm: Callable[[Tensor, NormWeight], Tensor]
    add_norm: Callable[[Tensor, Tensor, NormWeight], tuple[Tensor, Tensor]]
    """(x, y, norm) → (x + y, its norm). May write into x."""
    rotate: Rotate
    """[tokens, heads + 2 kv_heads, dim] as projected → rotated queries [tokens, heads, dim]; the keys, rotated, and the
    values are stored in their slots."""
    attention: Attention
    gated: Callable[[Tensor, Activation], Tensor]
    """[tokens, 2 inner] → activation(first half) * second half"""
    all_layers: Callable[[Any, Sequence[Any]], AllLayers | None] | None = None
    """(a decoder's plan, its layers) → the same bits of all layers in one call; `None`: not of these."""
    for_tokens: Callable[[Any, Tensor], Any] = lambda step, tokens: step
    """(what `prepare` gave, tokens [n] int64) → the same for a layer of which only what these tokens attend to is asked
    for: `attention` may leave that of others uncomputed."""
    shares_prefixes: bool = False
    """`attention` reads what is `shared` of a step once for its rows."""
    is_fixed_order: bool = False
    """A token's bits hang on the text before it alone, not even on how that was cut into steps. Torch's own operations
    choose an order of sums by the size of a step, and other kernels go another way for a token that is alone."""
    can_be_captured: bool = False
    """All is launched and nothing waited for: a CUDA graph can hold a step."""
