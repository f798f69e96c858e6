"""The page pool: which KV pages are free, held or idle.

It knows nothing of tokens, contexts or tensors; a page is a number below `pages`, and slot = page * page_size + offset.
Invariant: every page is in exactly one state, so free + idle + held == pages.

    free   nobody holds it, its content means nothing
    held   `references` > 0 holders read it (and one of them may write it, see `is_writable`)
    idle   nobody holds it, but its content is cached: the radix tree can find it, and may evict it

            allocate                release (last holder)
    free ------------> held -----------------------------> free     content not cached
                       held -----------------------------> idle     content cached
                       held <----------------------------- idle     retain
    free <------------------------------------------------ idle     uncache (evicted)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from parrot_compat.core.errors import EngineError

__all__ = ["OutOfPages", "PagePool"]


class OutOfPages(EngineError):
    """More KV pages were asked for than can be had. The scheduler answers by preempting; callers never see it."""


class PagePool:
    """Counts the holders of every page. Idle pages are kept in the order in which they should be evicted."""

    def __init__(self, pages: int, page_size: int) -> None:
        if pages < 1 or page_size < 1:
            raise ValueError(f"a pool needs at least one page of one token, not {pages} pages of {page_size} tokens")
        self.pages = pages
        self.page_size = page_size
        self._references = [0] * pages
        self._cached = bytearray(pages)
        self._free = list(range(pages - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Least recently held first; a page always comes before the pages of its prefix, see `release`."""

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def held(self) -> int:
        return self.pages - len(self._free) - len(self._idle)

    @property
    def next_idle(self) -> int | None:
        """The idle page to evict first."""
        return next(iter(self._idle), None)

    def idle_pages(self) -> tuple[int, ...]:
        """All idle pages, the one to evict first in front."""
        return tuple(self._idle)

    def references(self, page: int) -> int:
        return self._references[page]

    def is_cached(self, page: int) -> bool:
        return bool(self._cached[page])

    def is_writable(self, page: int) -> bool:
        """Whether its only holder may write any slot of it: nobody else reads it, now or by way of the tree."""
        return self._references[page] == 1 and not self._cached[page]

    def pages_for(self, tokens: int) -> int:
        """Pages that `tokens` tokens need."""
        return -(-tokens // self.page_size)

    def allocate(self, count: int) -> list[int]:
        """`count` free pages, held once by the caller. `OutOfPages` changes nothing."""
        if count > len(self._free):
            raise OutOfPages(f"{count} KV pages asked for, {len(self._free)} of {self.pages} are free")
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._references[page] = 1
        return pages

    def retain(self, pages: Iterable[int]) -> None:
        """One more holder for each page. None of them is free: a free page has no content to hold."""
        for page in pages:
            if self._references[page] == 0:
                del self._idle[page]
            self._references[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """One holder less for each page. `pages` are in text order; a holder lets go of its last pages first.

        They are released from the end, so that an idle page is evicted before the pages of its prefix.
        """
        for page in reversed(pages):
            count = self._references[page] - 1
            assert count >= 0, f"page {page} released more often than held"
            self._references[page] = count
            if count:
                continue
            if self._cached[page]:
                self._idle[page] = None
            else:
                self._free.append(page)

    def cache(self, page: int) -> None:
        """Keep a held page's content when its last holder lets go. From now on nobody may write it."""
        assert self._references[page] > 0 and not self._cached[page], f"page {page} cannot be cached"
        self._cached[page] = True

    def uncache(self, page: int) -> None:
        """The tree has forgotten this page: free it if it is idle, or leave it to its holders."""
        assert self._cached[page], f"page {page} is not cached"
        self._cached[page] = False
        if self._references[page] == 0:
            del self._idle[page]
            self._free.append(page)

    def check(self) -> None:
        """Assert that every page is in the one state that its holders and its content say."""
        free = set(self._free)
        assert len(free) == len(self._free), "a page is free twice"
        for page, references in enumerate(self._references):
            assert references >= 0, f"page {page} has {references} holders"
            is_cached = bool(self._cached[page])
            assert (page in free) == (references == 0 and not is_cached), f"page {page}: free list disagrees"
            assert (page in self._idle) == (references == 0 and is_cached), f"page {page}: idle list disagrees"
        assert self.free + self.idle + self.held == self.pages
