"""What a step draws for a row: a token, with what its row wants to know of it, or why there is none.

It knows nothing of how tokens are drawn or of what becomes of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from parrot_compat.core.call import TokenLogprobs
from parrot_compat.core.errors import EngineError

__all__ = ["Drawn", "Replaceable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaceable:
    """A drawn token in whose place the form of its row may put another."""

    told: TokenLogprobs
    logprobs: Tensor
    """[vocabulary] float32, where the logits are: of every token that may come in its place."""

    def taken(self, token: int) -> TokenLogprobs:
        """The same, where `token` came."""
        if token == self.told.token:
            return self.told
        return TokenLogprobs(token, float(self.logprobs[token]), self.told.top)


Drawn = int | TokenLogprobs | Replaceable | EngineError
"""A drawn token: its id, or where its row asks for log probabilities, those with it; or why none could be drawn."""
