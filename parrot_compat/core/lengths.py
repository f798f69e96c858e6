"""Lengths: how many tokens the answers of each function have had, as quantiles.

It knows nothing of calls or engines. A name is any tuple; tenants never share one, so that nobody learns from them.

The invariant: memory is bounded, by `KEPT` answers of each of the `NAMES` functions used last.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque

__all__ = ["Lengths"]

USUAL_TOKENS = 128
"""Of an answer that nothing is known about."""
KEPT = 64
"""Enough for a ninth decile, few enough to follow a prompt that somebody has just changed."""
NAMES = 4096

Name = tuple[str | None, ...]


class _Answers:
    __slots__ = ("ascending", "by_age")

    def __init__(self) -> None:
        self.by_age: deque[int] = deque()
        self.ascending: list[int] = []


class Lengths:
    def __init__(self) -> None:
        self._answers: OrderedDict[Name, _Answers] = OrderedDict()

    def learn(self, name: Name, tokens: int) -> None:
        answers = self._answers.setdefault(name, _Answers())
        self._answers.move_to_end(name)
        if len(self._answers) > NAMES:
            self._answers.popitem(last=False)
        if len(answers.by_age) == KEPT:
            del answers.ascending[bisect_left(answers.ascending, answers.by_age.popleft())]
        answers.by_age.append(tokens)
        insort(answers.ascending, tokens)

    def quantile(self, name: Name, share: float = 0.5) -> int | None:
        """The length that `share` of the answers do not exceed; `None` where there were none."""
        answers = self._answers.get(name)
        if answers is None:
            return None
        return answers.ascending[min(len(answers.ascending) - 1, int(share * len(answers.ascending)))]

    def expected(self, name: Name, most: int | None) -> int:
        """The median, or the usual, of an answer that has `most` tokens at most."""
        known = self.quantile(name)
        tokens = USUAL_TOKENS if known is None else known
        return tokens if most is None else min(tokens, most)

    def check(self) -> None:
        assert len(self._answers) <= NAMES
        for answers in self._answers.values():
            assert 0 < len(answers.by_age) <= KEPT and answers.ascending == sorted(answers.by_age)
