"""Saying that plans and sessions are over, behind the app's back.

One daemon thread per process sends the closes, one after the other; an app never waits for one, except that an
interpreter about to exit gives the last ones a moment. A close that does not arrive costs nothing but
accounting: plans and sessions expire by themselves.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
from collections.abc import Sequence

from openai._types import RequestOptions

from parrot_compat.integrations import remote
from parrot_compat.integrations.remote import Endpoint

__all__ = ["close_later", "closes_sent", "end_session_later"]

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
EXIT_WAIT_S = 1.0

_lock = threading.Lock()
_queue: queue.Queue[tuple[Endpoint, str, tuple[str, ...] | None]] = queue.Queue()
_process: int | None = None


def close_later(endpoint: Endpoint, graph: str, taken: Sequence[str]) -> None:
    """Tell the server that nothing more will be taken from this plan."""
    _put(endpoint, f"/parrot/graphs/{graph}/close", tuple(taken))


def end_session_later(endpoint: Endpoint, session: str) -> None:
    """Tell the server that nothing more will be asked in this session. Whatever still runs in it is cancelled."""
    _put(endpoint, f"/parrot/sessions/{session}", None)


def _put(endpoint: Endpoint, path: str, taken: tuple[str, ...] | None) -> None:
    try:
        _start()
    except RuntimeError as error:  # the interpreter is on its way out and begins no threads
        log.debug("%s expires by itself: %s", path, error)
        return
    _queue.put((endpoint, path, taken))


def closes_sent(timeout_s: float) -> bool:
    """Wait until all closes so far have been sent, or the time is over."""
    waiting = _queue.all_tasks_done
    with waiting:
        return waiting.wait_for(lambda: _queue.unfinished_tasks == 0, timeout_s)


def _start() -> None:
    global _queue, _process
    with _lock:
        if _process == os.getpid():
            return
        if _process is None:
            atexit.register(closes_sent, EXIT_WAIT_S)
        else:
            _queue = queue.Queue()  # what a forked child inherits is its parent's to send
        threading.Thread(target=_send_all, args=(_queue,), name="parrot-plan-closing", daemon=True).start()
        _process = os.getpid()


def _send_all(closes: queue.Queue[tuple[Endpoint, str, tuple[str, ...] | None]]) -> None:
    options: RequestOptions = {"max_retries": 0, "timeout": CLOSE_TIMEOUT_S}
    while True:
        endpoint, path, taken = closes.get()
        try:
            client = remote.client(endpoint)
            if taken is None:
                client.delete(path, cast_to=object, options=options)
            else:
                client.post(path, cast_to=object, body={"taken": list(taken)}, options=options)
        except Exception as error:
            log.debug("%s expires by itself, its close failed: %r", path, error)
        finally:
            closes.task_done()
