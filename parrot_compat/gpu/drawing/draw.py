"""How a row asks to be drawn.

It knows nothing of logits, and of a form only which tokens it allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.drawing.history import History
from parrot_compat.gpu.drawing.token_bits import TokenBits

__all__ = ["Draw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How to draw the next token of a row."""

    sampling: ResolvedSampling
    index: int
    """Position of the drawn token in the output, from 0. With the seed it fixes the random number used,
    so that neighbours, preemption and replay never change a sampled text."""
    history: History | None = None
    """The row's tokens so far. Only a sampling with penalties needs them."""
    allowed: Callable[[], TokenBits] | None = field(default=None, compare=False)
    """Asked once, when the logits are on their way: the tokens that may be drawn. `None`: all may. What may end a text
    of a wanted form is in it already."""
