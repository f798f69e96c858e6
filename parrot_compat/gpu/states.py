"""Reads the last states of a step's tokens for the rows that asked (`reading`).

It knows nothing of models or of why somebody asks.
The invariant: what a row is told depends on its own tokens only. Sums are made in float64, so that the chunks in which
a text is computed do not show in the float32 that is handed out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.reading import Read

__all__ = ["read_states"]


def read_states(states: Tensor, rows: Sequence[BatchRow]) -> list[Read]:
    """`states` [tokens, hidden] of the rows' tokens, one row after another; all rows have a reading."""
    reads: list[Read] = []
    for row, own in zip(rows, torch.split(states, [len(row.tokens) for row in rows]), strict=True):
        assert row.reading is not None
        pooled = own[-1].double() if row.reading.pooling == "last" else own.double().sum(0)
        reads.append(Read(states=pooled.cpu().numpy()))
    return reads
