"""A variable: one text, written once (or failed once), read by many.

It knows nothing of calls or engines. While its text is being written readers may follow it chunk by
chunk; nobody waits for a text that will never come.

The invariant: once settled, the outcome never changes, and `text == "".join(chunks)` for every reader. Then it is kept
in a few pieces, which late readers get.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from .call import VariableName
from .errors import AlreadySettled, ParrotError
from .frames import without_frames
from .news import News

__all__ = ["Variable"]

_PIECES = 16  # of a text that is there: a stream that begins late still is one, and so many strings take little


class Variable:
    """One text, written once. Readers wait for the text or for the reason it will never come."""

    def __init__(self, name: VariableName) -> None:
        self.name = name
        self._chunks: list[str] = []
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news = News()

    # ---- writing -----------------------------------------------------------------------------------

    def append(self, chunk: str) -> None:
        """Write the next stretch of the text. Readers of `stream` see it at once."""
        self._must_be_open()
        if chunk:
            self._chunks.append(chunk)
            self._news.tell()

    def close(self) -> None:
        """What was appended is the text."""
        self._must_be_open()
        self._fold()
        self._outcome.set_result(None)
        self._news.tell()

    def set(self, text: str) -> None:
        """Write the whole text at once."""
        self._must_be_open()
        self.append(text)
        self.close()

    def fail(self, cause: ParrotError) -> None:
        """Say why the text will never come. Does nothing if the variable is settled."""
        if not self._outcome.done():
            self._fold()
            self._outcome.set_exception(cause)
            self._outcome.exception()  # marks it as retrieved: a failed variable may have no reader
            self._news.tell()

    # ---- reading -----------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        return self._outcome.done()

    @property
    def identity(self) -> str:
        """What stands for it in a prefix hash."""
        return f"text:{self.text_so_far}" if self.is_settled and self.failure is None else f"variable:{self.name}"

    @property
    def failure(self) -> ParrotError | None:
        if not self._outcome.done():
            return None
        error = self._outcome.exception()
        assert error is None or isinstance(error, ParrotError)
        return error

    @property
    def text_so_far(self) -> str:
        return "".join(self._chunks)

    async def get(self) -> str:
        if not self._outcome.done():
            await asyncio.wait((self._outcome,))  # one reader leaving must not cancel the others
        if (failure := self.failure) is not None:
            raise without_frames(failure)
        return self.text_so_far

    async def stream(self) -> AsyncIterator[str]:
        """The text as it comes, then the end or the failure; a reader may come late."""
        position, chunks = 0, self._chunks
        while True:
            while position < len(chunks):
                position += 1
                yield chunks[position - 1]
            if self._outcome.done():
                break
            await self._news.heard()
        await self.get()

    # ---- inside ------------------------------------------------------------------------------------

    def _fold(self) -> None:
        """Another list: who reads the one of before goes on with it."""
        step = -(-len(self._chunks) // _PIECES)
        if step > 1:
            starts = range(0, len(self._chunks), step)
            self._chunks = ["".join(self._chunks[start : start + step]) for start in starts]

    def _must_be_open(self) -> None:
        if self._outcome.done():
            raise AlreadySettled(f"variable {self.name!r} is already settled")
