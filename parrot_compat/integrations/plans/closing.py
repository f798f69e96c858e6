"""Saying that plans and sessions are over, behind the app's back.

One daemon thread per process sends the closes, one after the other; an app never waits for one, except that an
interpreter about to exit gives the last ones a moment. A close that does not arrive costs nothing but
accounting: plans and sessions expire by themselves.

The invariant: to ask for a close takes no lock once the thread runs. A stream that nobody reads to its end is closed by
the garbage collector, in the middle of whatever holds one.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue

from openai._types import RequestOptions

from parrot_compat.integrations import remote
from parrot_compat.integrations.process_lock import ProcessLock
from parrot_compat.integrations.remote import Endpoint

__all__ = ["close_later", "closes_sent", "end_session_later"]

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
EXIT_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class _Close:
    endpoint: Endpoint
    path: str
    taken: tuple[str, ...] | None
    """Of a plan; `None`: it is a session that ends."""


_lock = ProcessLock()
_queue: SimpleQueue[_Close | threading.Event] = SimpleQueue()
_process: int | None = None


def close_later(endpoint: Endpoint, graph: str, taken: Sequence[str]) -> None:
    """Tell the server that nothing more will be taken from this plan."""
    _put(_Close(endpoint, f"/parrot/graphs/{graph}/close", tuple(taken)))


def end_session_later(endpoint: Endpoint, session: str) -> None:
    """Tell the server that nothing more will be asked in this session. Whatever still runs in it is cancelled."""
    _put(_Close(endpoint, f"/parrot/sessions/{session}", None))


def _put(close: _Close) -> None:
    try:
        _start()
    except RuntimeError as error:  # the interpreter is on its way out and begins no threads
        log.debug("%s expires by itself: %s", close.path, error)
        return
    _queue.put(close)


def closes_sent(timeout_s: float) -> bool:
    """Wait until all closes so far have been sent, or the time is over."""
    if _process != os.getpid():
        return True
    behind = threading.Event()
    _queue.put(behind)
    return behind.wait(timeout_s)


def _start() -> None:
    global _queue, _process
    if _process == os.getpid():
        return
    with _lock:
        if _process == os.getpid():
            return
        if _process is None:
            atexit.register(closes_sent, EXIT_WAIT_S)
        else:
            _queue = SimpleQueue()  # what a forked child inherits is its parent's to send
        threading.Thread(target=_send_all, args=(_queue,), name="parrot-plan-closing", daemon=True).start()
        _process = os.getpid()


def _send_all(closes: SimpleQueue[_Close | threading.Event]) -> None:
    while True:
        close = closes.get()
        if isinstance(close, threading.Event):
            close.set()
        else:
            _send(close)


def _send(close: _Close) -> None:
    options: RequestOptions = {"max_retries": 0, "timeout": CLOSE_TIMEOUT_S}
    try:
        client = remote.client(close.endpoint)
        if close.taken is None:
            client.delete(close.path, cast_to=object, options=options)
        else:
            client.post(close.path, cast_to=object, body={"taken": list(close.taken)}, options=options)
    except Exception as error:
        log.debug("%s expires by itself, its close failed: %r", close.path, error)
