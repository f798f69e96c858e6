"""The session of one run of an app: told with its plans and its requests, and ended behind the last of them.

    session.begin()                               # the run
    with session.going_on():                      # a request of it, or anything else that must not be cut short
        … {"session": session.tell(endpoint)} …
    session.end()

It knows endpoints, and what a run is to no framework. The invariants: a session is not ended under anything that goes
on in it; a name that was ended is never told again; a label of the app's own is the app's to use again, so it is ended
by time alone.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from parrot_compat.integrations.labels import current_session_label
from parrot_compat.integrations.remote import Endpoint

from .closing import end_session_later

__all__ = ["RunSession", "labelled"]


class RunSession:
    """Threads share it. What goes on in it is counted: the run itself, its requests, its plans."""

    def __init__(self, label: str | None = None) -> None:
        self.is_of_many = label is not None
        """More than one call is known to belong to it."""
        self._label = label
        self._lock = threading.RLock()  # the garbage collector ends a stream anywhere, in here too
        self._name: str | None = None
        self._going_on = 0
        self._calls = 0
        self._told: set[Endpoint] = set()

    def begin(self) -> None:
        with self._lock:
            self._going_on += 1

    def end(self) -> None:
        """Where it was the last, servers that know the session hear that it is over. Never blocks."""
        with self._lock:
            self._going_on -= 1
            if self._going_on or self._name is None:
                return
            name, self._name = self._name, None  # who comes after this is in another session
            told, self._told = self._told, set()
        for server in told:
            end_session_later(server, name)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        self.begin()
        try:
            yield
        finally:
            self.end()

    def count(self) -> None:
        """The app makes a call in it that no plan answers."""
        with self._lock:
            self.is_of_many = self.is_of_many or self._calls > 0
            self._calls += 1

    def hints(self, server: Endpoint) -> dict[str, Any]:
        """For the `parrot` object of a request. A call that is alone is a session without being told."""
        return {"session": self.tell(server)} if self.is_of_many else {}

    def tell(self, server: Endpoint) -> str:
        """The name by which this server knows it from now on. Only while something goes on in it."""
        if self._label is not None:
            return self._label
        with self._lock:
            assert self._going_on, "nothing goes on that would end the session"
            self._told.add(server)
            self._name = self._name or uuid.uuid4().hex
            return self._name


def labelled(session: RunSession) -> RunSession:
    """The session that the app has named for what it does here, or else this one."""
    label = current_session_label()
    return session if label is None else RunSession(label)
