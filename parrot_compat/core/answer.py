"""An answer: what comes of a call, read as it comes, for whoever follows it.

It knows nothing of who draws it, or of what becomes of the call.

The invariant: whoever follows it, early or late, gets all of it in order, and then its end; who comes when it is folded
gets it as one chunk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import chain
from typing import TypeVar

from .call import Reading
from .engine import Chunk
from .errors import ParrotError
from .frames import without_frames
from .news import News
from .reading import Reader
from .tool_calls import joined_pieces

__all__ = ["Answer"]

T = TypeVar("T")


class Answer:
    def __init__(self, reading: Reading) -> None:
        self._reader: Reader | None = Reader(reading)
        self.marks = self._reader.marks
        """What the reading goes by, see `Generate.marks`."""
        self._chunks: list[Chunk] = []
        self._whole: Chunk | None = None
        """Once it is over."""
        self._news = News()
        self._failure: ParrotError | None = None

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
        assert self._reader is not None, "it is over"
        chunk = self._reader.read(chunk)
        self._chunks.append(chunk)
        self._news.tell()
        return chunk

    def end(self, failure: ParrotError | None = None) -> Chunk:
        """Nothing more comes: that was all, or `failure` is why it was not. Returns all of it, as one chunk."""
        self._failure = failure
        self._whole = _joined(self._chunks)
        self._reader = None
        self._news.tell()
        return self._whole

    def fold(self) -> None:
        """From now on it is one chunk; who follows it already goes on with the list of those that came."""
        assert self._whole is not None, "it is not over"
        if self._chunks:
            self._chunks = [self._whole]

    async def follow(self) -> AsyncIterator[Chunk]:
        """Every chunk from the first on, then the end or the failure."""
        position, chunks = 0, self._chunks
        while True:
            while position < len(chunks):
                position += 1
                yield chunks[position - 1]
            if self._whole is not None:
                break
            await self._news.heard()
        if self._failure is not None:
            raise without_frames(self._failure)


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    """How text and calls followed each other is not in it."""
    if not chunks:
        return Chunk()
    first, last = chunks[0], chunks[-1]
    return Chunk(
        text="".join(chunk.text for chunk in chunks),
        tokens=_all(chunk.tokens for chunk in chunks),
        finish=last.finish,
        usage=last.usage,
        logprobs=_all(chunk.logprobs for chunk in chunks),
        reasoning="".join(chunk.reasoning for chunk in chunks),
        refusal="".join(chunk.refusal for chunk in chunks),
        calls=joined_pieces(_all(chunk.calls for chunk in chunks)),
        prompt_logprobs=_all(chunk.prompt_logprobs for chunk in chunks),
        prompt=first.prompt,
        stop=last.stop,
    )


def _all(parts: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(chain.from_iterable(parts))
