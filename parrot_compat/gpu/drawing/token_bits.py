"""Sets of tokens as one bit a token, the lowest first: what a form allows, without a byte for each of 150,000 tokens.

It knows numbers only; nothing of forms or logits. What lies beyond the last bit is not in the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from parrot_compat.gpu.to_device import moved

__all__ = ["TokenBits", "all_but", "as_mask", "spread"]

TokenBits = npt.NDArray[np.uint8]


def all_but(tokens: Iterable[int], size: int) -> TokenBits:
    """All of `size` bytes of tokens but these."""
    bits = np.full(size, 0xFF, np.uint8)
    for token in tokens:
        if token < 8 * size:
            bits[token >> 3] &= 0xFF ^ (1 << (token & 7))
    return bits


def as_mask(sets: Sequence[TokenBits], tokens: int, device: torch.device) -> Tensor:
    """[sets, tokens] bool on `device`, where the bits go as they are and are spread out."""
    bits = np.zeros((len(sets), -(-tokens // 8)), np.uint8)
    for row, one in zip(bits, sets, strict=True):
        row[: len(one)] = one[: len(row)]
    if device.type == "cpu":
        return torch.from_numpy(np.unpackbits(bits, axis=1, count=tokens, bitorder="little").view(np.bool_))
    return spread(moved(torch.from_numpy(bits), device), tokens)


def spread(bits: Tensor, tokens: int) -> Tensor:
    """[sets, bytes] uint8 → [sets, tokens] bool"""
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits[:, :, None] >> places) & 1).flatten(1)[:, :tokens].bool()
