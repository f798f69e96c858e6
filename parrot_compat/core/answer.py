"""An answer: what comes of a call, read as it comes, for whoever follows it.

It knows nothing of who draws it, or of what becomes of the call.

The invariant: whoever follows it, early or late, gets all of it in order, and then its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from .call import Reading
from .engine import Chunk
from .errors import ParrotError
from .news import News
from .reading import Reader

__all__ = ["Answer"]


class Answer:
    def __init__(self, reading: Reading) -> None:
        self._reader = Reader(reading)
        self._chunks: list[Chunk] = []
        self._news = News()
        self._is_over = False
        self._failure: ParrotError | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """What the reading goes by, see `Generate.marks`."""
        return self._reader.marks

    @property
    def chunks(self) -> Sequence[Chunk]:
        """Those that have come."""
        return self._chunks

    @property
    def drawn_tokens(self) -> int:
        """So far; 0 of a text engine."""
        return sum(len(chunk.tokens) for chunk in self._chunks)

    def add(self, chunk: Chunk) -> Chunk:
        """The next one; returns what is read in it."""
        assert not self._is_over
        chunk = self._reader.read(chunk)
        self._chunks.append(chunk)
        self._news.tell()
        return chunk

    def end(self, failure: ParrotError | None = None) -> None:
        """Nothing more comes: that was all, or `failure` is why it was not."""
        self._is_over, self._failure = True, failure
        self._news.tell()

    async def follow(self) -> AsyncIterator[Chunk]:
        """Every chunk from the first on, then the end or the failure."""
        position = 0
        while True:
            while position < len(self._chunks):
                position += 1
                yield self._chunks[position - 1]
            if self._is_over:
                break
            await self._news.heard()
        if self._failure is not None:
            raise self._failure
