"""Was it equal work with equal answers? Two cells of one round, call by call.

It knows cells and nothing of lanes. A call that asked something else than its twin did comes after a difference in
what it was given; only the first difference of a line of calls says something about a server.

The invariant: every call of either cell is counted once, in exactly one of the kinds.
"""

from __future__ import annotations

from dataclasses import dataclass

from .cells import Cell
from .clients import CallRecord

__all__ = ["Equality", "compare", "wrong_lengths"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Equality:
    calls: int = 0
    identical: int = 0
    """Same prompt, same text, same counts of tokens."""
    differing: int = 0
    """Same prompt, another text."""
    followers: int = 0
    """Another prompt, since an answer before it differed."""
    alone: int = 0
    """Only one of the two made this call."""
    unequal_counts: int = 0
    """Same prompt and text, but the servers count other tokens."""

    def __add__(self, other: Equality) -> Equality:
        pairs = {name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__}
        return Equality(**pairs)

    @property
    def share(self) -> float:
        """Of the calls that asked the same, those that were answered the same."""
        asked_the_same = self.identical + self.differing + self.unequal_counts
        return self.identical / asked_the_same if asked_the_same else 0.0


def compare(one: Cell, other: Cell) -> Equality:
    ours, theirs = _by_name(one), _by_name(other)
    kinds = dict.fromkeys(("identical", "differing", "followers", "alone", "unequal_counts"), 0)
    for name in ours.keys() | theirs.keys():
        left, right = ours.get(name), theirs.get(name)
        if left is None or right is None:
            kinds["alone"] += 1
        elif left.prompt != right.prompt:
            kinds["followers"] += 1
        elif left.text != right.text:
            kinds["differing"] += 1
        elif (left.prompt_tokens, left.output_tokens) != (right.prompt_tokens, right.output_tokens):
            kinds["unequal_counts"] += 1
        else:
            kinds["identical"] += 1
    return Equality(calls=sum(kinds.values()), **kinds)


def wrong_lengths(cell: Cell) -> list[CallRecord]:
    """Calls that were answered with another number of tokens than was asked for."""
    return [call for call in cell.calls if call.finished is not None and call.output_tokens != call.max_tokens]


def _by_name(cell: Cell) -> dict[tuple[str, str], CallRecord]:
    """Finished calls of the apps that every lane has to finish, by app and name."""
    return {(app.key, call.name): call for app in cell.foreground for call in app.calls if call.finished is not None}
