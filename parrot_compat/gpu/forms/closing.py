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
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from parrot_compat.gpu.drawing.token_bits import TokenBits

__all__ = ["Closings", "Patience", "TokenMatcher", "TokenText", "bits_of"]

_ORDERS = ('"}]>)', '}]>)"', '@"}]>')
"""What comes first: in a string a quote ends it; where a key may begin, a brace ends the object; of a mail address the
first part may go on for ever, and be quoted."""
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
_MOST_TRIED = 64
"""Ends of a way that are tried in place of the whole, the shortest first. Each is looked at token by token."""
_MANY = _NEVER = 1 << 40
"""Of tokens, and as the cost of one."""


@dataclass(slots=True)
class Patience:
    """How many tokens may still be looked at, all searches together. Each costs some 50 microseconds of a step."""

    left: int


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
    """The closings of one vocabulary. `endings`: texts that end something of a form, tried before all else: nothing
    shows a search of tokens that a text which may go on for ever ends with a whole tag."""

    def __init__(self, text: TokenText, ends: Sequence[int], endings: Sequence[str] = ()) -> None:
        self._text = text
        self._endings = [text.tokenize_bytes(ending.encode()) for ending in endings]
        self._quote = text.tokenize_bytes(b'"')
        self._end = ends[0]
        self._orders = [self._order(first) for first in _ORDERS]

    def find(self, matcher: TokenMatcher, most: int, patience: Patience | None = None) -> list[int] | None:
        """A closing from here, if one is found that is not much longer than `most` tokens; [] where this is an end.
        With `patience` no more is looked at than it has left."""
        found: list[list[int]] = []
        for order in self._orders:
            if (path := self._walk(matcher, order, most, patience or Patience(_MANY))) is not None:
                found.append(path)
                if len(path) <= max(_SHORT, most // _AMPLE):
                    break
        return min(found, key=len, default=None)

    def closes(self, matcher: TokenMatcher, closing: list[int]) -> bool:
        """The tokens bring the text to an end from here too."""
        return matcher.validate_tokens([*closing, self._end]) == len(closing) + 1

    def _walk(self, matcher: TokenMatcher, order: _Order, most: int, patience: Patience) -> list[int] | None:
        path: list[int] = []
        preference = _Preference(order)
        most_tokens = 3 * most + 256  # it is written shorter in the end
        try:
            while not matcher.is_accepting():
                taken = matcher.compute_ff_tokens() or self._ending(matcher)
                patience.left -= max(1, len(taken))
                if patience.left < 0:
                    return None
                if not taken:
                    token = preference.choose(bits_of(matcher))
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
        for length in range(1, min(len(path), _MOST_TRIED)):  # what led there may not have been needed
            if self.closes(matcher, path[-length:]):
                path = path[-length:]
                break
        shorter = self._text.tokenize_bytes(self._text.decode_bytes(path)) if path else path
        return shorter if len(shorter) < len(path) and self.closes(matcher, shorter) else path

    def _ending(self, matcher: TokenMatcher) -> list[int]:
        """The first that may come as a whole; [] where none may. Where a quote may come, too, any of them may be text,
        again and again: but for the first, which begins with a line's end, as no text inside JSON does."""
        endings = self._endings
        if endings and matcher.validate_tokens(self._quote) > 0:
            endings = endings[:1]
        whole = (ending for ending in endings if matcher.validate_tokens(ending) == len(ending))
        return next(whole, [])

    def _order(self, first: str) -> _Order:
        bytes_ = list((first + _REST).encode())
        bytes_ += [byte for byte in range(256) if byte not in bytes_ and byte != ord(_LAST)] + [ord(_LAST)]
        written = [self._text.tokenize_bytes(bytes([byte])) for byte in bytes_]
        ranks = [rank for rank, tokens in enumerate(written) if len(tokens) == 1]
        tokens = np.array([written[rank][0] for rank in ranks], np.int64)
        return _Order(tokens, np.array(ranks, np.int64), self._text.vocab_size)


class _Order(NamedTuple):
    """Tokens of one byte, which every text can be made of, and the place of each among them."""

    tokens: npt.NDArray[np.int64]
    ranks: npt.NDArray[np.int64]
    vocab_size: int


class _Preference:
    """Which token one walk takes where it has a choice: that of the first place, and of a later one each time that it
    is used. A token of several bytes only where none of one byte may come."""

    def __init__(self, order: _Order) -> None:
        self._order = order
        self._costs = order.ranks.copy()
        self._used = np.zeros_like(order.ranks)
        self._others = Counter[int]()

    def choose(self, bits: TokenBits) -> int | None:
        tokens, ranks, vocab_size = self._order
        may_come = (bits[tokens >> 3] >> (tokens & 7).astype(np.uint8)) & 1
        if not may_come.any():
            return self._other(bits, vocab_size)
        place = int(np.where(may_come, self._costs, _NEVER).argmin())
        is_ending = ranks[place] < _ENDINGS
        if is_ending:  # something has ended: what comes now is another loop
            self._used[ranks >= _ENDINGS] = 0
            self._costs[ranks >= _ENDINGS] = ranks[ranks >= _ENDINGS]
            self._others.clear()
        self._used[place] += 1
        times = int(self._used[place])
        self._costs[place] = ranks[place] + (times // _PATIENCE if is_ending else _USED * times)
        return int(tokens[place])

    def _other(self, bits: TokenBits, vocab_size: int) -> int | None:
        allowed = np.flatnonzero(np.unpackbits(bits, count=vocab_size, bitorder="little"))
        if not len(allowed):
            return None
        new = np.setdiff1d(allowed, np.fromiter(self._others, np.int64), assume_unique=True)
        token = int(new[0]) if len(new) else min(allowed.tolist(), key=lambda other: (self._others[other], other))
        self._others[token] += 1
        return token
