"""What the rows of a step drew, with what they want to know of it: computed behind the logits, read when it is wanted.

It knows logits and draws, nothing of steps or of what becomes of a token.

The invariant: all that is computed is asked of the device when an outcome is made, and nothing waits for it then;
reading computes nothing. So what was asked of the device in between is not in the way.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.drawn import Drawn, Replaceable
from parrot_compat.gpu.drawing.logprobs import as_told, looked_up
from parrot_compat.gpu.drawing.sampler import UNUSABLE, not_drawable
from parrot_compat.gpu.drawing.softmax import log_softmax
from parrot_compat.gpu.to_device import listed
from parrot_compat.gpu.to_host import HostCopies

__all__ = ["Outcome"]


class Outcome:
    def __init__(self, tokens: Tensor, logits: Tensor, draws: Sequence[Draw]) -> None:
        """`tokens` [rows] int64, or `UNUSABLE`: drawn from `logits` [rows, vocabulary], on whose device they are."""
        self.tokens = tokens
        self._draws = draws
        self._asking = [row for row, draw in enumerate(draws) if draw.sampling.logprobs is not None]
        self._replaceable: dict[int, Tensor] = {}
        self._copies = HostCopies([tokens, *(self._logprobs(logits) if self._asking else ())])

    def read(self) -> list[Drawn]:
        """What each row drew, or why it could not; rows that ask for log probabilities have them with it."""
        tokens, *told = self._copies.read()
        drawn: list[Drawn] = [not_drawable() if token == UNUSABLE else token for token in tokens]
        if not told:
            return drawn
        tops = [self._draws[row].sampling.logprobs or 0 for row in self._asking]
        items = as_told([tokens[row] for row in self._asking], tops, *told)
        for row, item in zip(self._asking, items, strict=True):
            if item.token != UNUSABLE:
                all_of_it = self._replaceable.get(row)
                drawn[row] = item if all_of_it is None else Replaceable(told=item, logprobs=all_of_it)
        return drawn

    def _logprobs(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`looked_up` for the rows that ask; those of every token stay on the device, where a form may put any."""
        tokens = self.tokens
        if len(self._asking) < len(self._draws):
            places = listed(self._asking, logits.device)
            logits, tokens = logits[places], tokens[places]
        logprobs = log_softmax(logits.float())
        for row, its in zip(self._asking, logprobs.unbind(), strict=True):
            if self._draws[row].allowed is not None:
                self._replaceable[row] = its
        # of a row without a usable token, what is said of token 0 in its place is thrown away
        return looked_up(tokens.clamp(min=0), logprobs)
