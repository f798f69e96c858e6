"""How a session begins and ends on its host, whoever still holds it.

It knows the host and the loop, and not the session: what ends a session must not keep it alive.

The invariant: a session that was opened is closed, unless its host is gone; one that never was is not.
"""

from __future__ import annotations

import weakref
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from parrot_compat.core.errors import Cancelled, ParrotError, UnknownSession

from .host import Host, ServerUnreachable
from .loop_thread import LoopThread, shared

__all__ = ["Opened", "close_on"]


class Opened:
    """A session of the host, for as long as anybody holds this."""

    def __init__(self, loop: LoopThread, host: Host, name: str | None, ttl_s: float | None) -> None:
        self.id: Future[str] = loop.spawn(_open_on(host, name, ttl_s))
        """The host's, as soon as it is known."""
        self.let_go = weakref.finalize(self, _let_go, loop, host, self.id)
        self.let_go.atexit = False
        # A failure holds the frames that it went through, and whoever holds this with them.
        self.id.add_done_callback(partial(_unless_it_failed, self.let_go))

    @property
    def has_failed(self) -> bool:
        return _has_failed(self.id)


def _has_failed(opened: Future[str]) -> bool:
    return opened.done() and (opened.cancelled() or opened.exception() is not None)


def _unless_it_failed(let_go: weakref.finalize[..., Any], opened: Future[str]) -> None:
    if _has_failed(opened):
        let_go.detach()


async def _open_on(host: Host, name: str | None, ttl_s: float | None) -> str:
    await host.start()
    return await host.open_session(name, ttl_s)


async def close_on(host: Host, opened: Future[str]) -> None:
    try:
        session = await shared(opened)
    except ParrotError:
        return  # it never was
    with suppress(UnknownSession, ServerUnreachable):  # it is closed already, or its server is gone
        await host.close_session(session)


def _let_go(loop: LoopThread, host: Host, opened: Future[str]) -> None:
    """Nobody holds the session any more. The collector may run anywhere, so this must not wait."""
    with suppress(Cancelled, RuntimeError):
        loop.spawn(close_on(host, opened))
