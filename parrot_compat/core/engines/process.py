"""An engine in a process of its own, which this one starts, talks to and ends.

It knows no model and no torch: only a command to run, what to say to it first, and that it will speak the messages of
`core.engine_front` over a socket pair. Two threads read and write, so that the event loop never waits for the child.

The invariant: when the child is gone, however it went, everybody who waits for it is told at once; and one that is
there and says nothing of what it was asked goes after a while (`silence`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from ..engine import EngineInfo
from ..engine_front import Command, EngineFront, Ready, StepReport
from ..errors import EngineError, EngineLost, ParrotError
from .silence import Silence, processor_s

__all__ = ["ProcessEngine"]

logger = logging.getLogger(__name__)

GRACE_S = 5.0
"""How long a child may take to end by itself: a step is over by then."""
SILENCE_S = 120.0
"""How long, about, a child with a model may say nothing of what it was asked; five times as long while it computes. It
tells of every step; no step of a GPU takes that long, and what has to be compiled is compiled before it is there."""


class ProcessEngine(EngineFront):
    """`command` is run with `--fd N` added; `hello` is sent to it as JSON before anything else.

    >>> engine = ProcessEngine([sys.executable, "-m", "parrot_compat.gpu"], {"model": "builtin:tiny"})
    >>> info = await engine.start()
    >>> await engine.close()

    The child's stderr is ours, and so is what it prints. A lost engine stays lost: start another one.
    """

    def __init__(
        self,
        command: Sequence[str],
        hello: Mapping[str, Any],
        *,
        grace_s: float = GRACE_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        """`silence_s`: see `silence`; 0: it may be silent for ever."""
        super().__init__(str(hello.get("name", "engine")))
        self._command = tuple(command)
        self._hello = dict(hello)
        self._grace_s = grace_s
        self._silence = Silence(silence_s)
        self._sent = self._taken = 0
        """Last command that was sent, and that the child has told of."""
        self._reports = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: asyncio.Future[EngineInfo] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._outbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._closed = False

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    async def start(self) -> EngineInfo:
        """Run the child and wait until its model is loaded. Errors: `ModelRefused`, `EngineError`, `EngineLost`."""
        assert self._child is None, f"engine {self.name!r} was started already"
        self._loop = asyncio.get_running_loop()
        self._started, self._ended = self._loop.create_future(), self._loop.create_future()
        connection = self._run_child()
        threading.Thread(target=self._read, args=(connection,), name=f"{self.name} answers", daemon=True).start()
        try:
            return await asyncio.shield(self._started)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Ask the child to end, and end it if it does not within the grace."""
        self._closed = True
        self._lose(f"engine {self.name!r} was closed")
        if self._child is None or self._ended is None:
            return
        self._outbox.put(None)
        if await self._ends():
            return
        logger.warning("engine %s (pid %d) did not end by itself within %g s", self.name, self.pid, self._grace_s)
        self._kill()
        if not await self._ends():  # inside the kernel, where no signal reaches it
            logger.warning("engine %s (pid %d) cannot be ended", self.name, self.pid)

    async def _ends(self) -> bool:
        """Within the grace."""
        assert self._ended is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s):
                await asyncio.shield(self._ended)
        return self._ended.done()

    def _send(self, command: Command) -> None:
        self._sent = command.id
        self._outbox.put(command)

    def _run_child(self) -> Connection:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                self._child = subprocess.Popen(
                    [*self._command, "--fd", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # what it prints is for people: our stdout may be somebody's data
                    start_new_session=True,  # Ctrl-C is for us; the child ends because we do
                )
            except OSError as error:
                raise EngineError(f"engine {self.name!r} cannot be started: {error}") from error
            return Connection(ours.detach())

    # ---- in the threads ----------------------------------------------------------------------------

    def _write(self, connection: Connection) -> None:
        try:
            connection.send_bytes(json.dumps(self._hello).encode())
            while True:
                message = self._outbox.get()
                connection.send(message)
                if message is None:
                    return
        except OSError:
            return  # the child is gone: the reader tells
        except Exception:
            logger.exception("engine %s (pid %d) cannot be told what it was to be", self.name, self.pid)
            self._kill()

    def _read(self, connection: Connection) -> None:
        writer = threading.Thread(target=self._write, args=(connection,), name=f"{self.name} commands", daemon=True)
        writer.start()
        try:
            self._tell(self._greet, connection.recv())
            while True:
                self._tell(self._deliver, connection.recv())
        except (EOFError, OSError):
            pass  # it is gone, or going
        except Exception:
            logger.exception("engine %s (pid %d) says what cannot be read", self.name, self.pid)
            self._kill()
        status = self._reap()
        self._outbox.put(None)
        writer.join()
        connection.close()
        self._tell(self._gone, status)

    def _reap(self) -> int:
        assert self._child is not None
        try:
            return self._child.wait(self._grace_s)
        except subprocess.TimeoutExpired:  # it let go of the connection and stays
            self._child.kill()
            return self._child.wait()

    def _kill(self) -> None:
        assert self._child is not None
        self._child.kill()

    def _tell(self, what: Callable[[Any], None], argument: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what, argument)
        except RuntimeError:  # the event loop is closed: nobody is left to be told
            self._kill()

    # ---- in the event loop -------------------------------------------------------------------------

    def _greet(self, hello: object) -> None:
        assert self._started is not None
        if self._started.done():
            return
        if isinstance(hello, ParrotError):
            self._started.set_exception(hello)
        elif not self._closed:
            assert isinstance(hello, Ready), hello
            self._join(hello)
            self._started.set_result(hello.info)
            if self._silence.look_s:
                self._look()

    def _deliver(self, report: StepReport) -> None:
        self._taken = report.taken
        self._reports += 1
        super()._deliver(report)

    @property
    def _is_asked(self) -> bool:
        """There is something that the child has not answered, or taken: whoever asked may have given up since."""
        return self._sent > self._taken or any(not answers.ended for answers in self._answers.values())

    def _look(self) -> None:
        """Again and again, until it is lost."""
        assert self._loop is not None and self.pid is not None
        if self._lost is not None:
            return
        used_s = processor_s(self.pid)
        if self._silence.is_too_long(is_asked=self._is_asked, heard=self._reports, used_s=used_s):
            reason = f"engine {self.name!r} (pid {self.pid}) said nothing more of what it was asked"
            logger.error("%s: it is ended", reason)
            self._lose(reason)  # at once: inside the kernel no signal reaches it, and it would not be gone
            self._kill()
        else:
            self._loop.call_later(self._silence.look_s, self._look)

    def _gone(self, status: int) -> None:
        assert self._started is not None and self._ended is not None
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        reason = f"engine {self.name!r} (pid {self.pid}) {how}"
        self._lose(reason)
        if not self._started.done():
            self._started.set_exception(EngineLost(f"{reason} before its model was loaded"))
        if not self._ended.done():
            self._ended.set_result(None)
