"""Begun pages: who is inside a page, so that others with the same text need not compute it again.

The radix tree has full pages only. Here are the contexts whose last page is not full, by the place where that page
stands: the text's beginning and the page before. It knows contexts and page numbers; nothing of pools or tensors.

The invariant: a context that is found at a place has computed the keys and values it is found for.
"""

from __future__ import annotations

from collections.abc import Mapping

from .context import Context

__all__ = ["BegunPages"]

Place = tuple[str, int | None]
"""Where in the tree the text begins, and the full page before the begun one. The same page means the same text."""


class BegunPages:
    def __init__(self, page_size: int) -> None:
        self._size = page_size
        self._inside: dict[Place, dict[int, Context]] = {}
        self._place_of: dict[int, Place] = {}

    def enter(self, context: Context) -> None:
        """The context has come into another page, whose full ones are the tree's."""
        self.leave(context)
        full, begun = divmod(context.computed, self._size)
        if begun:
            place = self._place_of[context.id] = _place(context, full)
            self._inside.setdefault(place, {})[context.id] = context

    def has(self, context: Context) -> bool:
        return context.id in self._place_of

    def leave(self, context: Context) -> None:
        place = self._place_of.pop(context.id, None)
        if place is not None:
            inside = self._inside[place]
            del inside[context.id]
            if not inside:
                del self._inside[place]

    def find(self, context: Context, most: int) -> tuple[int, int] | None:
        """The page that another has begun with the context's next tokens, and up to where its slots can be taken over:
        at most up to `most`. `None`: nobody has more than it has itself."""
        full = context.computed // self._size
        inside = self._inside.get(_place(context, full))
        if inside is None:
            return None
        begin, best = full * self._size, context.computed
        page: int | None = None
        wanted = context.tokens[begin : min(most, begin + self._size)]
        for other in inside.values():
            upto = begin + _common(wanted, other.tokens[begin : other.computed])
            if upto > best and other is not context:
                page, best = other.pages[full], upto
                if best == most:
                    break
        return None if page is None else (page, best)

    def check(self, contexts: Mapping[int, Context]) -> None:
        """Assert that everybody is where he is found."""
        assert sum(map(len, self._inside.values())) == len(self._place_of)
        for place, inside in self._inside.items():
            assert inside, f"nobody is at {place}"
            for id, context in inside.items():
                full, begun = divmod(context.computed, self._size)
                assert contexts.get(id) is context and self._place_of[id] == place
                assert begun and _place(context, full) == place, f"context {id} is not at {place}"


def _place(context: Context, full: int) -> Place:
    return context.root, context.pages[full - 1] if full else None


def _common(some: list[int], others: list[int]) -> int:
    """How many tokens are the same from the first on."""
    for number, (one, other) in enumerate(zip(some, others, strict=False)):
        if one != other:
            return number
    return min(len(some), len(others))
