"""Softmax of rows of scores, and its logarithm, in an order of adding up that is every row's own.

Torch's CUDA kernels read 16 bytes at a time. Where a row's length is no multiple of them, they begin at its first whole
16 bytes, which lie elsewhere in each row of a batch, and so does what each thread adds up (SoftMax.cu). It knows
scores, nothing of draws.

The invariant: what a row gets hangs on the row alone, not on its place among others.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["log_softmax", "softmax"]

READ_BYTES = 16


def softmax(scores: Tensor) -> Tensor:
    """Of each row of `scores` [rows, vocabulary]."""
    return _lengthened(torch.softmax, scores, _missing(scores))


def log_softmax(scores: Tensor) -> Tensor:
    """Of each row of `scores` [rows, vocabulary]."""
    return _lengthened(torch.log_softmax, scores, _missing(scores))


def _missing(scores: Tensor) -> int:
    """How many scores a row lacks to be read in whole steps. On a CPU none: there its length alone decides."""
    return 0 if scores.device.type == "cpu" else -scores.shape[-1] % (READ_BYTES // scores.element_size())


def _lengthened(compute: Callable[..., Tensor], scores: Tensor, missing: int) -> Tensor:
    """`compute` with so many more scores in each row, none of which has a share."""
    if not missing:
        return compute(scores, dim=-1)
    return compute(pad(scores, (0, missing), value=float("-inf")), dim=-1)[..., : scores.shape[-1]]
