"""What the sampler draws, as numbers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.sampler import UNUSABLE, not_drawable, sample


def drawn_tokens(logits: Tensor, draws: Sequence[Draw], eos_token_ids: Sequence[int]) -> list[int]:
    tokens: list[int] = sample(logits, draws, eos_token_ids).tolist()
    if UNUSABLE in tokens:
        raise not_drawable()
    return tokens
