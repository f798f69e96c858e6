"""Closings: tokens that bring a text, begun under a grammar, to an end that the grammar accepts.

The library can say which tokens may come next and not how far the end is. Here a way to the end is looked for: forced
text is taken as it is, and where there is a choice, what ends things is tried before what begins them, and what was
used already after what was not (so that no loop of the grammar holds the search). It may find no way where there is
one, and not always the shortest; whatever it finds, the grammar has accepted token by token.

It knows matchers and tokens; nothing of sequences or schemas. The invariant: the matcher is left as it was found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .token_bits import TokenBits

__all__ = ["Closings", "TokenMatcher", "TokenText", "bits_of"]

_ORDERS = ('"}]>)', '}]>)"')
"""What comes first: in a string a quote ends it; where a key may begin, a brace ends the object."""
_REST = ":, \n0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-.<([{"
_LAST = "\\"
_USED = 256
"""By how many places a token falls back each time it is used: behind all that was not."""
_ENDINGS = len(_ORDERS[0])
_PATIENCE = 16
"""An ending falls back one place only after so many uses: nested things need many in a row."""
_SHORT = 8
"""A closing this short is not tried to be beaten,"""
_AMPLE = 4
"""nor one that leaves three quarters of the tokens unused: it is looked for again when they are fewer."""


class TokenMatcher(Protocol):
    """The part of llguidance's matcher that a search needs."""

    def is_accepting(self) -> bool: ...
    def compute_bitmask(self) -> bytes: ...
    def compute_ff_tokens(self) -> list[int]: ...
    def consume_token(self, sampled_token: int) -> bool: ...
    def try_consume_tokens(self, tokens: list[int]) -> int: ...
    def validate_tokens(self, tokens: list[int]) -> int: ...
    def rollback(self, num_tokens: int) -> bool: ...


class TokenText(Protocol):
    """The part of llguidance's tokenizer that a search needs."""

    vocab_size: int

    def tokenize_bytes(self, utf8bytes: bytes) -> list[int]: ...
    def decode_bytes(self, tokens: list[int]) -> bytes: ...


def bits_of(matcher: TokenMatcher) -> TokenBits:
    """Which tokens may come next."""
    return np.frombuffer(matcher.compute_bitmask(), np.uint8)


class Closings:
    """The closings of one vocabulary."""

    def __init__(self, text: TokenText, ends: Sequence[int]) -> None:
        self._text = text
        self._end = ends[0]
        self._tables = [self._ranks(order) for order in _ORDERS]

    def find(self, matcher: TokenMatcher, most: int) -> list[int] | None:
        """A closing from here, if one is found that is not much longer than `most` tokens; [] where this is an end."""
        found: list[list[int]] = []
        for ranks in self._tables:
            if (path := self._walk(matcher, ranks, most)) is not None:
                found.append(path)
                if len(path) <= max(_SHORT, most // _AMPLE):
                    break
        return min(found, key=len, default=None)

    def closes(self, matcher: TokenMatcher, closing: list[int]) -> bool:
        """The tokens bring the text to an end from here too."""
        return matcher.validate_tokens([*closing, self._end]) == len(closing) + 1

    def _walk(self, matcher: TokenMatcher, ranks: npt.NDArray[np.int32], most: int) -> list[int] | None:
        path: list[int] = []
        used: Counter[int] = Counter()
        costs = ranks.copy()
        most_tokens = 3 * most + 256  # it is written shorter in the end
        try:
            while not matcher.is_accepting():
                taken = matcher.compute_ff_tokens()
                if not taken:
                    token = self._choose(matcher, ranks, costs, used)
                    if token is None:
                        return None
                    taken = [token]
                if len(path) + len(taken) > most_tokens:
                    return None
                done = matcher.try_consume_tokens(taken)
                path += taken[:done]
                if done < len(taken):
                    return None
        finally:
            if path:
                matcher.rollback(len(path))
        for length in range(1, len(path)):  # what led there may not have been needed
            if self.closes(matcher, path[-length:]):
                path = path[-length:]
                break
        shorter = self._text.tokenize_bytes(self._text.decode_bytes(path)) if path else path
        return shorter if len(shorter) < len(path) and self.closes(matcher, shorter) else path

    def _choose(
        self,
        matcher: TokenMatcher,
        ranks: npt.NDArray[np.int32],
        costs: npt.NDArray[np.int32],
        used: Counter[int],
    ) -> int | None:
        """The allowed token of least cost: its rank, and more for each time that it was used."""
        allowed = np.flatnonzero(np.unpackbits(bits_of(matcher), count=self._text.vocab_size, bitorder="little"))
        if not len(allowed):
            return None
        token = int(allowed[costs[allowed].argmin()])
        is_ending = ranks[token] < _ENDINGS
        if is_ending:  # something has ended: what comes now is another loop
            for other in [other for other in used if ranks[other] >= _ENDINGS]:
                del used[other]
                costs[other] = ranks[other]
        used[token] += 1
        costs[token] = ranks[token] + (used[token] // _PATIENCE if is_ending else _USED * used[token])
        return token

    def _ranks(self, first: str) -> npt.NDArray[np.int32]:
        """By token: its place in the order. Tokens of one byte, which every text can be made of, come before all."""
        order = list((first + _REST).encode())
        order += [byte for byte in range(256) if byte not in order and byte != ord(_LAST)] + [ord(_LAST)]
        ranks = np.full(self._text.vocab_size, 1 << 20, np.int32)
        for place, byte in enumerate(order):
            tokens = self._text.tokenize_bytes(bytes([byte]))
            if len(tokens) == 1:
                ranks[tokens[0]] = place
        return ranks
