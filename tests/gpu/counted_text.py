"""A text of which it is known how much of it was read."""

from __future__ import annotations

from typing import Any


class Text(list[int]):
    """A text that counts how many of its tokens are read."""

    read = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        Text.read += len(found) if isinstance(place, slice) else 1
        return found
