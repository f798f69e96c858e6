"""Listening: an application on a socket, until it is told to stop.

It knows uvicorn and sockets, nothing of what the application does. The port is taken before anything slow
begins, so that a port in use is known at once.

The invariant: after `stop` no connection is taken; answers in progress have `drain_s` seconds (at least one), then
they are cancelled, and have the time to say so to their clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import socket
from collections.abc import Callable, Iterator
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from parrot_compat.core.errors import ParrotError

from .limits import RequestLimits

__all__ = ["CannotListen", "Listener", "whole_seconds"]

_LAST_WORDS_S = 5.0
"""For the errors of answers that were cancelled. They take milliseconds, unless a client does not read."""


class CannotListen(ParrotError):
    """The address cannot be had. Who can act: the operator."""


class Listener:
    """A port that is ours. `serve` puts an application on it."""

    def __init__(self, host: str, port: int, *, limits: RequestLimits | None = None) -> None:
        """Of the `limits` those are kept here that no application can: they hold before it is asked."""
        self._limits = limits or RequestLimits()
        self._socket = _bound(host, port)
        self._server: _Server | None = None

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def url(self) -> str:
        """Where a client on this machine finds it."""
        host, port = self._socket.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def is_serving(self) -> bool:
        return self._server is not None

    @property
    def is_stopping(self) -> bool:
        return self._server is not None and self._server.should_exit

    async def serve(self, app: ASGIApp, *, drain_s: float, on_ready: Callable[[], None]) -> None:
        """Returns some time after `stop`; `on_ready` is called once requests are answered. Errors: `CannotListen`."""
        config = uvicorn.Config(
            app,
            log_config=None,  # what it has to say goes where all logs of this process go
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            http=_protocol(self._limits),
            h11_max_incomplete_event_size=self._limits.head_bytes,
            server_header=False,
            # longer than clients keep idle connections in their pools: none is closed under a request
            timeout_keep_alive=75,
            timeout_graceful_shutdown=whole_seconds(drain_s),
        )
        self._server = _Server(config, on_ready)
        try:
            await self._server.serve(sockets=[self._socket])
        except OSError as error:  # another process listened first
            raise _cannot_listen(self.url, error) from error
        await self._server.cut_off()

    def stop(self) -> None:
        """Said a second time, answers in progress have no time left."""
        if self._server is not None:
            if self._server.should_exit:
                self._server.force_exit = True
                self._server.cancel_answers()  # uvicorn goes on waiting for their connections
            self._server.should_exit = True


def whole_seconds(drain_s: float) -> int:
    """What answers in progress really get: uvicorn counts whole ones, and takes 0 for no limit."""
    return max(1, math.ceil(drain_s))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    def cancel_answers(self) -> set[asyncio.Task[None]]:
        """Those in progress, each once: they then say so to their clients."""
        tasks = set(self.server_state.tasks)
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        return tasks

    async def cut_off(self) -> None:
        """Returns when no answer is in progress any more."""
        left = self.cancel_answers()
        if left:
            _, left = await asyncio.wait(left, timeout=_LAST_WORDS_S)
        for task in left:
            task.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command line's: uvicorn would raise them again in the midst of our own closing."""
        yield


def _protocol(limits: RequestLimits) -> type[asyncio.Protocol] | Literal["h11"]:
    try:
        from .heads import limited
    except ImportError:  # no httptools: h11 has a limit of its own for bytes, and none for time
        return "h11"
    return limited(limits)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise CannotListen(f"--host {host!r} is no address of this machine: {error.strerror}") from error
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _cannot_listen(f"{host}:{port}", error) from error
    return bound


def _cannot_listen(place: str, error: OSError) -> CannotListen:
    match error.errno:
        case errno.EADDRINUSE:
            return CannotListen(f"{place} is in use by another program; choose another --port (0 takes any free one)")
        case errno.EACCES:
            return CannotListen(f"{place} is not allowed for this user; ports below 1024 often are not")
        case _:
            return CannotListen(f"{place} cannot be listened on: {error.strerror or error}")
