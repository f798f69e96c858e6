"""The table of the Triton kernels, for CUDA devices (and for tests, in Triton's interpreter, on a CPU).

Importing it needs triton; whoever wants to know whether there is one asks `kernels/table.py`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor

from parrot_compat.gpu.kernels import Kernels, NormWeight, Positions
from parrot_compat.gpu.kernels.triton.elementwise import add_norm, gated, norm
from parrot_compat.gpu.kernels.triton.rotary import rotate
from parrot_compat.gpu.kernels.triton.step import TritonStep, attend

__all__ = ["TRITON", "TRITON_DETERMINISTIC"]


def _rotate(
    qkv: Tensor,
    heads: int,
    key_cache: Tensor,
    value_cache: Tensor,
    step: TritonStep,
    at: Positions,
    query_norm: NormWeight | None,
    key_norm: NormWeight | None,
) -> Tensor:
    return rotate(qkv, heads, key_cache, value_cache, step.inputs, at, query_norm, key_norm)


TRITON = Kernels(
    name="triton",
    shares_prefixes=True,
    can_be_captured=True,
    prepare=TritonStep,
    norm=norm,
    add_norm=add_norm,
    rotate=_rotate,
    attention=attend,
    gated=gated,
)

TRITON_DETERMINISTIC = replace(
    TRITON,
    prepare=partial(TritonStep, deterministic=True),
    attention=partial(attend, fuses=False),
    shares_prefixes=False,
    is_fixed_order=True,
)
"""A row's bits hang on its text alone: one kind of strip, which rounds alike with a mask and without."""
