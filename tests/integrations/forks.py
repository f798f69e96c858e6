"""Work in a child that is forked from here, while threads of this process hold what they hold."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

__all__ = ["held", "in_a_child"]

PATIENCE_S = 60.0


def in_a_child(work: Callable[[], Any]) -> Any:
    """What `work` gives, or the text of what it raises."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this platform does not fork")
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[Any] = context.Queue()

    def run() -> None:
        try:
            queue.put(work())
        except BaseException as error:
            queue.put(repr(error))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = context.Process(target=run, daemon=True)
        child.start()
    found = queue.get(timeout=PATIENCE_S)
    child.join(PATIENCE_S)
    return found


@contextmanager
def held(lock: AbstractContextManager[Any]) -> Iterator[None]:
    """By another thread."""
    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            is_over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        is_held.wait()
        yield
    finally:
        is_over.set()
        holder.join()
