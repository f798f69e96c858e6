"""Heads: how large the request line and the headers of a request may be, and how long they may take to come; and how
long an answer may take to be read.

uvicorn's parser keeps what it is sent until a head is whole, without end and before anybody is asked for a key; and a
whole answer is the transport's as soon as it is given, which keeps it until the client has read it, also after it was
closed. This knows nothing of what a request asks.

The invariants: of what is neither a body nor a whole head a connection keeps at most `head_bytes` and one read more;
it is closed where no request is being answered on it for `head_s`, unless it rests between two of them, which uvicorn
times; and where there is something to be read and less of it than `pace_bytes` is read in `pace_s`, it is cut.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import Problem
from .limits import RequestLimits

__all__ = ["HeadProtocol", "limited"]

_PATIENCE_S = 1.0
"""For the rest of what is refused: a connection that is closed under a client's hands takes our answer with it."""


class HeadProtocol(HttpToolsProtocol):
    """One connection."""

    limits = RequestLimits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._kept = 0
        """Bytes that came since the parser has handed on a body or a whole head."""
        self._is_refused = False
        self._end = self.loop.call_later(self.limits.head_s, transport.close)
        self._is_timed = True
        self._unread = 0
        """Bytes that were on their way to the client when it was last looked at."""
        self._look: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._kept += len(data)
        super().data_received(data)
        if self._kept > self.limits.head_bytes:
            self._refuse(self._too_large())
        elif not self._is_timed and not self._is_answering:  # uvicorn's own timer has ended with the first byte
            self._close_in(self.limits.head_s)

    def on_headers_complete(self) -> None:
        self._kept = 0
        lines = sum(len(name) + len(value) + 4 for name, value in self.headers)  # ": " and the line's end
        if len(self.url) + lines > self.limits.head_bytes:  # it came in one read
            problem = self._too_large()
            self._refuse(problem)
            raise ValueError(problem.message)  # the parser stops here
        self._end.cancel()
        self._is_timed = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._kept = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._kept = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's word for what the parser does not take."""
        self._refuse(Problem(status=400, message=msg, code="invalid_http"))

    # ---- inside ----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """From now on the client has `pace_s` for the next `pace_bytes`, or for what there is left."""
        if self._look is not None:
            self._look.cancel()
        self._unread = self.transport.get_write_buffer_size()
        self._look = self.loop.call_later(self.limits.pace_s, self._cut_if_unread) if self._unread else None

    def _cut_if_unread(self) -> None:
        adds = self._is_answering and not self.flow.write_paused  # a stream: how much there is says nothing of reading
        if adds or self.transport.get_write_buffer_size() <= max(0, self._unread - self.limits.pace_bytes):
            self._watch()
        else:
            self.transport.abort()  # `close` would wait for the client

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _too_large(self) -> Problem:
        message = f"the request line and the headers are longer than {self.limits.head_bytes} bytes"
        return Problem(status=431, message=message, code="headers_too_large")

    def _refuse(self, problem: Problem) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        if self._is_answering:
            if self.pipeline or self.cycle.response_started or not self.cycle.more_body:
                self.transport.close()  # an earlier request, of whose answer this would be a part
                return
            self.cycle.disconnected = True  # its own body is what is wrong: this is its answer
            self.cycle.message_event.set()
        body = problem.body()
        head = (
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.write_eof()
        self._close_in(_PATIENCE_S)

    def _close_in(self, seconds: float) -> None:
        self._end.cancel()
        self._end = self.loop.call_later(seconds, self.transport.close)
        self._is_timed = True


def limited(limits: RequestLimits) -> type[asyncio.Protocol]:
    """The protocol with these limits: uvicorn takes a class, and gives it arguments of its own."""

    class Limited(HeadProtocol):
        pass

    Limited.limits = limits
    return Limited
