"""Which kernels run on which device: the only place that chooses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from parrot_compat.gpu.kernels import Kernels
from parrot_compat.gpu.kernels.cpu.layers import layers_at_once
from parrot_compat.gpu.kernels.cpu.table import FORMATS, cpu_kernels
from parrot_compat.gpu.kernels.reference import elementwise
from parrot_compat.gpu.kernels.reference.attention import paged_attention

__all__ = ["MOST_HEAD_DIM", "REFERENCE", "choose"]

MOST_HEAD_DIM = 256
"""Numbers of one head that the kernels in C++ and in Triton hold at once."""

REFERENCE = Kernels(
    name="torch",
    prepare=lambda inputs: inputs,
    norm=elementwise.norm,
    add_norm=elementwise.add_norm,
    rotate=elementwise.rotate,
    attention=paged_attention,
    gated=elementwise.gated,
)


def choose(
    device: torch.device, dtype: torch.dtype, *, head_dim: int = MOST_HEAD_DIM, deterministic: bool = False
) -> Kernels:
    """The fastest table that works for `dtype` and heads of `head_dim` on `device`. `deterministic`: of those that have
    a fixed order (`Kernels.is_fixed_order`), where there is one."""
    if head_dim > MOST_HEAD_DIM:
        return REFERENCE
    if device.type == "cpu" and dtype in FORMATS:
        found = cpu_kernels(dtype, in_blocks=deterministic)
        if found is not None:
            at_once = partial(layers_at_once, in_blocks=deterministic)
            return replace(found, all_layers=at_once, is_fixed_order=deterministic)
    if device.type == "cuda":
        try:
            # Late: only a machine with a CUDA device needs triton.
            from parrot_compat.gpu.kernels.triton.table import TRITON, TRITON_DETERMINISTIC
        except ImportError:
            return REFERENCE
        return TRITON_DETERMINISTIC if deterministic else TRITON
    return REFERENCE
