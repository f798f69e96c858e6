"""What the sampler draws, as numbers; what rows are told of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.drawn import Drawn
from parrot_compat.gpu.drawing.outcome import Outcome
from parrot_compat.gpu.drawing.sampler import UNUSABLE, not_drawable, sample


def drawn_tokens(logits: Tensor, draws: Sequence[Draw], eos_token_ids: Sequence[int]) -> list[int]:
    tokens: list[int] = sample(logits, draws, eos_token_ids).tolist()
    if UNUSABLE in tokens:
        raise not_drawable()
    return tokens


def told_of(tokens: Sequence[int], logits: Tensor, draws: Sequence[Draw]) -> list[Drawn]:
    return Outcome(torch.tensor(tokens), logits, draws).read()
