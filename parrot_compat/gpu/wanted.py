"""What somebody wants to know of the tokens that a row computes, and the answer.

They know nothing of tensors, sequences or scheduling. A text computed in several chunks is read in as many parts, whose
sums add up and whose lists follow each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parrot_compat.core.call import TokenLogprobs
from parrot_compat.core.engine import Pooling
from parrot_compat.gpu.drawing.drawn import Drawn

__all__ = ["Pool", "Read", "Score", "Wanted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The states of the row's tokens, for a vector."""

    pooling: Pooling


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How likely the tokens were that follow in the prompt."""

    targets: tuple[int, ...]
    """What follows the row's tokens, in order; one less where nothing follows the last."""
    top: int
    """How many of the likeliest tokens are told with each."""


Wanted = Pool | Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What a row gives of which something is `Wanted`: what was drawn, as any row does, and what was read."""

    drawn: Drawn | None = None
    states: npt.NDArray[np.float64] | None = None
    """[hidden]: the sum of the states of the row's tokens ("mean"), or the last token's state ("last")."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """One for each target."""

    @property
    def is_usable(self) -> bool:
        """Whether numbers were read: nothing is NaN or infinite, but for a log probability, which may be -inf."""
        if self.states is not None and not np.isfinite(self.states).all():
            return False
        # One bad logit makes all log probabilities of its row NaN, so the token's own tells of the others.
        return all(item.logprob < math.inf for item in self.logprobs)
