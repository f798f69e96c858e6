"""An application: where the graphs of an app written for us run. A server, or this process; the app cannot tell.

    with parrot_compat.connect("http://127.0.0.1:8000/v1"):        # or parrot_compat.embedded("builtin:tiny")
        code = write_python_code("a sort")                         # semantic functions find it by themselves
    application.open_session()                                     # and so does everything explicit

It knows nothing of HTTP, managers or engines: a `Host` does the work, in the application's own event loop, which is
why the same objects serve code with and without a loop, and notebooks.

The invariant: when an application is closed nothing that it started still runs, here or on the host.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import weakref
from contextlib import suppress
from types import TracebackType

from parrot_compat.core.errors import CallerError, ParrotError
from parrot_compat.integrations.process_lock import ProcessLock

from .host import Host
from .loop_thread import LoopThread
from .session import Session, entered_session

__all__ = ["Application", "current_application", "current_session"]

_entered: contextvars.ContextVar[Application | None] = contextvars.ContextVar("parrot_application", default=None)
_ELSEWHERE = (
    "this thread or task is in no application's block, though another one is: only what a block starts inherits it, "
    "and threads do not. Call "
    "`application.as_default()`, hand the thread a session (`function.within(session)`), or start it with "
    "`contextvars.copy_context().run`."
)
_lock = ProcessLock()
_default: Application | None = None
_is_chosen = False
"""By the app: the default application is not one that was made here, of what the environment names."""
_blocks = 0
"""Of applications, that somebody in this process is in."""
_open: dict[int, tuple[LoopThread, Host]] = {}
"""Of applications that have not ended, held by somebody or not."""


def current_session() -> Session:
    """Where a call belongs that names no session: the innermost session's block, or that of an application, or the
    default application."""
    return entered_session() or current_application().session


def current_application() -> Application:
    """The innermost application's block, or the default one: `Application.as_default`, else the server that the
    environment names (`PARROT_BASE_URL`). Errors: `CallerError` where there is none, and others are in blocks."""
    global _default, _is_chosen
    entered = _entered.get()
    if entered is not None:
        return entered
    with _lock:
        # One that was made here is made again in a forked child: the app does not know of it.
        if _default is None or _default.is_closed or not (_is_chosen or _default.loop.is_here):
            from .remote_host import connect  # here: it makes applications, and loads the SDK

            if _blocks and (_default is None or _default.is_closed) and not os.environ.get("PARROT_BASE_URL"):
                raise CallerError(_ELSEWHERE)
            _default, _is_chosen = connect(), False
        return _default


class Application:
    """Made by `connect` and by `compose.embedded`. Starts with its first use, or with its block."""

    def __init__(self, host: Host, *, name: str = "parrot application") -> None:
        self.host = host
        self.loop = LoopThread(name)
        self.is_closed = False
        self._session: weakref.ref[Session] | None = None
        self._outer: list[Application | None] = []
        _open[id(self.loop)] = self.loop, host
        self._let_go = weakref.finalize(self, _end_soon, self.loop, host)
        self._let_go.atexit = False

    def open_session(self, name: str | None = None, *, ttl_s: float | None = None) -> Session:
        """One run of the app. `ttl_s`: how long the host keeps it without a sign of life. Does not wait: where it
        cannot be opened, its variables say so."""
        return Session(self, name, ttl_s)

    @property
    def session(self) -> Session:
        """Where calls belong that name no session. It ends when nobody holds a variable of it any more, and is never
        full: it goes on in another session of the host."""
        with _lock:
            session = None if self._session is None else self._session()
            if session is None or session.is_closed or session.is_lost:
                session = Session(self, None, None, is_default=True)
                self._session = weakref.ref(session)
            return session

    def as_default(self) -> Application:
        """Be the application of all code that is in no application's block: for notebooks."""
        global _default, _is_chosen
        with _lock:
            _default, _is_chosen = self, True
        return self

    def start(self) -> Application:
        """Wait until it can be used. Errors: what keeps it from starting."""
        self.loop.run(self.host.start())
        return self

    def close(self) -> None:
        """End everything that it started. Idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self._let_go.detach()
            _end(self.loop, self.host)

    async def aclose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._let_go.detach()
            try:
                await self.loop.arun(self.host.close())
            finally:
                await self.loop.aclose()
                _open.pop(id(self.loop), None)

    def __enter__(self) -> Application:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        self.close()

    async def __aenter__(self) -> Application:
        try:
            await self.loop.arun(self.host.start())
        except BaseException:
            await self.aclose()
            raise
        self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        await self.aclose()

    def _enter(self) -> None:
        global _blocks
        self._outer.append(_entered.get())
        _entered.set(self)
        with _lock:
            _blocks += 1

    def _leave(self) -> None:
        global _blocks
        _entered.set(self._outer.pop())
        with _lock:
            _blocks -= 1


def _end(loop: LoopThread, host: Host) -> None:
    try:
        if loop.has_started:
            loop.run(host.close())
    finally:
        loop.close()
        _open.pop(id(loop), None)


def _end_soon(loop: LoopThread, host: Host) -> None:
    """Nobody holds the application any more. The collector may run anywhere, so this must not wait."""

    def ended(_: object) -> None:
        loop.close_soon()
        _open.pop(id(loop), None)

    with suppress(ParrotError, RuntimeError):  # RuntimeError: made in a process that this one was forked from
        if loop.has_started:
            loop.spawn(host.close()).add_done_callback(ended)
        else:
            ended(None)


@atexit.register
def _close_open() -> None:
    """A program that ends without closing its applications leaves no engine and no session behind."""
    for loop, host in tuple(_open.values()):
        with suppress(ParrotError, RuntimeError):
            _end(loop, host)
