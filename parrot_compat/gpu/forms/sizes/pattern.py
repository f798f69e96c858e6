"""Sizes of regular expressions."""

from __future__ import annotations

import re

from parrot_compat.core.errors import BadSchema

from .size import MANY, refuse, whole_number

__all__ = ["MOST_FORCED", "MOST_PLACES", "check_pattern", "counts", "forced_of", "places_of"]

MOST_PLACES = 70_000
"""Once counted repetitions are written out."""
MOST_FORCED = 16_384
"""Characters of text that is forced: 5 ms of a step for each token that is drawn in it."""
# what may fail to end is read once, not again from each of its characters: `re` lets no other thread run meanwhile
_PIECES = re.compile(
    r"\\[ux]\{[0-9A-Fa-f]*+\}|\\.|\[(?:\\.|[^\]\\])*(?:\]|(?P<unclosed>))|\(\?[a-zA-Z-]*(?P<verbose>x)"
    r"|\{\s*+(?P<low>\d++)?\s*+(?P<comma>,)?\s*+(?P<high>\d++)?\s*+\}|.",
    re.DOTALL,
)
_VERBOSE = "the flag x of a pattern is not read; write it without blanks and comments"
_NOT_READ = {"unclosed": "a pattern opens a bracket that it does not close", "verbose": _VERBOSE}


def check_pattern(pattern: str, flags: str = "") -> None:
    """Errors: `BadSchema`. Counted repetitions multiply where they are nested: `(a{1000}){1000}` is a million."""
    if "x" in flags:
        raise BadSchema(_VERBOSE)
    refuse(places_of(pattern), MOST_PLACES, "the repetitions of a pattern come to {} places")
    refuse(forced_of(pattern), MOST_FORCED, "a pattern forces {} characters of text")


def places_of(pattern: str) -> int:
    """Once repetitions are written out to the most they allow."""
    return _written_out(pattern, is_most=True)


def forced_of(pattern: str) -> int:
    """Characters at most that a text in this form may have to have."""
    return _written_out(pattern, is_most=False)


def counts(found: re.Match[str]) -> tuple[int, int]:
    """Of `{3}`, `{3,}`, `{,3}` or `{3,5}` the least and the most; without a most, once more than the least."""
    low = whole_number(found["low"] or "0")
    high = whole_number(found["high"]) if found["high"] else low + (found["comma"] is not None)
    return low, high


def _written_out(pattern: str, is_most: bool) -> int:
    of_alternatives = sum if is_most else min
    sums, last = [0], 0
    others: list[list[int]] = [[]]  # of each open group, the alternatives before this one
    for found in _PIECES.finditer(pattern):
        piece = found[0]
        if found.lastgroup in _NOT_READ:
            raise BadSchema(_NOT_READ[found.lastgroup])
        if piece == "(":
            sums.append(0)
            others.append([])
        elif piece == ")" and len(sums) > 1:
            last = of_alternatives([*others.pop(), sums.pop()])
            sums[-1] += last
        elif piece == "|":
            others[-1].append(sums[-1])
            sums[-1] = 0
        elif found["low"] is not None or found["high"] is not None:
            low, high = counts(found)
            # what may be left out is forced once it has been begun
            times = max(1, high if is_most else low)
            sums[-1] = min(MANY, sums[-1] + last * (times - 1))
            last = min(MANY, last * times)
        else:
            last = 1
            sums[-1] += 1
    return sum(of_alternatives([*before, at]) for before, at in zip(others, sums, strict=True))
