"""Where the answers of one command come in: for one who waits for each, or handed on as they come.

They know neither the command nor where its answers are from. The invariant: after its last answer an inbox has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from .engine import Chunk, Embedded, Filled
from .errors import ParrotError
from .news import News

__all__ = ["Answer", "Inbox", "Taken", "checked"]

Answer = Filled | Chunk | Embedded | ParrotError | None
"""`None`: done. Chunks go on until one has `finish`; every other answer is the last one of its command."""


class Inbox:
    """The answers of one command, for one who waits for each."""

    def __init__(self) -> None:
        self.ended = False
        """The last one has come."""
        self._came: deque[Answer] = deque()
        self._news = News()

    def put(self, answer: Answer) -> None:
        self.ended = _is_last(answer)
        self._came.append(answer)
        self._news.tell()

    async def get(self) -> Answer:
        while not self._came:
            await self._news.heard()
        return self._came.popleft()


class Taken:
    """The answers of one command, handed on as they come: nobody has to be woken for them."""

    def __init__(self, take: Callable[[Chunk], bool]) -> None:
        self.ended = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Nothing more is wanted, or can come."""
        self._take = take

    def put(self, answer: Answer) -> None:
        self.ended = _is_last(answer)
        if self.over.done():
            return  # a cancel is on its way
        try:
            chunk = checked(answer)
            assert isinstance(chunk, Chunk), chunk
            if not self._take(chunk) or self.ended:
                self.over.set_result(None)
        except Exception as error:  # it belongs to who pours; the answers of others come next
            self.over.set_exception(error)
            self.over.exception()  # marks it as retrieved: who pours may be leaving


def _is_last(answer: Answer) -> bool:
    return not isinstance(answer, Chunk) or answer.finish is not None


def checked(answer: Answer) -> Answer:
    if isinstance(answer, ParrotError):
        raise answer
    return answer
