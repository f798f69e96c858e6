"""A lock of this process's own, for what is the process's.

A fork copies a lock as it is: held by a thread that is not in the child, it would be held there for ever.

The invariant: in a forked child it is free, whoever held it in the parent.
"""

from __future__ import annotations

import os
import threading

__all__ = ["ProcessLock"]


class ProcessLock:
    """Kept as long as the process lives: for what a process has a few of. The thread that holds it may take it again:
    the garbage collector ends a stream anywhere, in the middle of whatever holds one."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def _renew(self) -> None:
        self._lock = threading.RLock()
