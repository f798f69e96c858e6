"""Log probabilities of a message's text: which of the drawn tokens wrote it.

It knows nothing of how they are told: each is an entry with the `bytes` that its token writes. Text comes later than
its tokens where it may become a call or a stop string, and what was thought or called has entries too.

The invariant: the bytes of a text's entries, put together, are its text, but for a token that was drawn whole and told
in part, and for what ended it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Entry", "TextEntries"]

Entry = dict[str, Any]


class TextEntries:
    def __init__(self) -> None:
        self._untold: list[Entry] = []

    def push(self, entries: list[Entry]) -> None:
        self._untold += entries

    def drop(self) -> None:
        """None of those that are left wrote any text."""
        self._untold.clear()

    def of(self, text: str, *, begins: bool) -> list[Entry]:
        """Those that wrote this, which comes next; where a text `begins`, others may stand before them."""
        wanted = text.encode("utf-8", "replace")
        first = self._first(wanted) if begins else 0
        last, size = first, 0
        while last < len(self._untold) and size < len(wanted):
            size += len(self._untold[last]["bytes"])
            last += 1
        taken, self._untold = self._untold[first:last], self._untold[last:]
        return taken

    def rest(self) -> list[Entry]:
        """What ended the text."""
        rest, self._untold = self._untold, []
        return rest

    def _first(self, wanted: bytes) -> int:
        whole = b"".join(bytes(entry["bytes"]) for entry in self._untold)
        offset = 0
        for index, entry in enumerate(self._untold):
            if whole.startswith(wanted, offset) or wanted.startswith(whole[offset:]):
                return index
            offset += len(entry["bytes"])
        return 0
