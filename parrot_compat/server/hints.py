"""Hints: what a client says about a call beyond what is to be answered, and what became of each.

It knows no endpoint and no hint by name. A hint never changes an answer and never fails a call.

The invariant: a hint that came is named in the receipt, as applied, clipped or ignored; names come from the client,
so they are shortened and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

__all__ = ["Hints", "Word"]

Word = Literal["applied", "clipped", "ignored"]
"""clipped: taken with less than it asked for."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:\-\[\]]{1,96}")
_NAMED_AT_MOST = 32


class Hints:
    def __init__(self) -> None:
        self._words: dict[str, Word] = {}

    def applied(self, name: str) -> None:
        self._words[name] = "applied"

    def clipped(self, name: str) -> None:
        self._words[name] = "clipped"

    def ignored(self, *names: str) -> None:
        self._words.update((name, "ignored") for name in names)

    def rename(self, names: Mapping[str, str]) -> None:
        """As the client calls them, where that is another name."""
        self._words = {names.get(name, name): word for name, word in self._words.items()}

    def words(self) -> dict[str, Word]:
        """For the receipt."""
        said: dict[str, Word] = {}
        for word in ("applied", "clipped", "ignored"):
            of_word = [name for name, its in self._words.items() if its == word]
            said |= dict.fromkeys(_plain_names(of_word), word)
        return said

    def headers(self) -> dict[str, str]:
        """For answers that carry no receipt object: `x-parrot-hints` what was taken, `x-parrot-ignored` the rest."""
        taken = [f"{name}={word}" for name, word in self.words().items() if word != "ignored"]
        ignored = _plain_names(name for name, word in self._words.items() if word == "ignored")
        headers = {"x-parrot-hints": ", ".join(taken), "x-parrot-ignored": ", ".join(ignored)}
        return {name: value for name, value in headers.items() if value}


def _plain_names(names: Iterable[str]) -> list[str]:
    """Sorted, and only those that are safe to repeat anywhere; how many others there are is told as "+3"."""
    names = sorted(set(names))
    plain = [name for name in names if _PLAIN_NAME.fullmatch(name)][:_NAMED_AT_MOST]
    others = len(names) - len(plain)
    return plain + ([f"+{others}"] if others else [])
