"""Where values stand in a text: it is made a second time with every value between sentinels.

It knows text and nothing of templates. The invariant: a place is told only of a text that, without the sentinels, is
the real one.
"""

from __future__ import annotations

import re

__all__ = ["marked", "places", "unmarked"]

_SENTINEL = re.compile("[\ue010\ue012](\\d+)[\ue011\ue013]")


def marked(index: int, value: object) -> str:
    """A value between the sentinels of its number."""
    return f"\ue010{index}\ue011{value}\ue012{index}\ue013"


def unmarked(text: str) -> str:
    return _SENTINEL.sub("", text)


def places(text: str) -> list[tuple[int, dict[str, int]]]:
    """Number and place of each value, counted in the text without sentinels."""
    found: list[tuple[int, dict[str, int]]] = []
    begun: dict[int, int] = {}
    taken = 0
    for sentinel in _SENTINEL.finditer(text):
        place, index = sentinel.start() - taken, int(sentinel.group(1))
        taken += len(sentinel.group())
        if sentinel.group()[0] == "\ue010":
            begun[index] = place
        elif index in begun:
            found.append((index, {"start": begun.pop(index), "end": place}))
    return found
