"""The port between an app's objects and where the app runs: a server, or a manager in this process.

It names no implementation. Every method runs in the application's own event loop; ids are the host's, opaque to
the app. Whatever goes wrong is one of `core.errors`, the same from every host.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.core.errors import ParrotError

from .request import Bound, Request

__all__ = ["Host", "NotAParrotServer", "ServerUnreachable"]


class ServerUnreachable(ParrotError):
    """No answer from the server, or half of one. Who can act: whoever runs it."""


class NotAParrotServer(ParrotError):
    """Something answered that does not speak /v1/parrot. Who can act: whoever wrote the URL."""


class Host(Protocol):
    """Sessions, calls and variables, as asynchronous verbs."""

    async def start(self) -> None:
        """Make it ready to be used; does nothing the second time."""

    async def close(self) -> None:
        """End everything; nothing of it runs afterwards."""

    async def open_session(self, name: str | None, ttl_s: float | None) -> str:
        """`ttl_s`: how long it lives without a sign of life; `None` leaves that to the host."""

    async def close_session(self, session: str) -> None:
        """Cancel what runs in it and forget it. Errors: `UnknownSession`."""

    async def cancel(self, session: str) -> None:
        """End every call that is not over. The session stays open."""

    async def describe(self, session: str) -> dict[str, Any]:
        """The session's calls and variables as the wire shows them."""

    async def submit(
        self, session: str, request: Request, bindings: Sequence[Mapping[str, str | Bound]]
    ) -> list[dict[str, str]]:
        """The request over each of the bindings: all are accepted, as one group, or none. Gives for each the ids of
        its variables by output name."""

    async def add_variable(self, session: str, name: str | None, text: str | None) -> str:
        """A variable that no call writes; without a text it is written later."""

    async def write(self, session: str, variable: str, text: str) -> None:
        """Errors: `AlreadySettled`."""

    async def read(self, session: str, variable: str, *, wait_s: float, objective: ObjectiveKind | None) -> str | None:
        """Its text, awaited; `None` where it has none after `wait_s`. Raises what the variable failed with."""

    def stream(self, session: str, variable: str, *, objective: ObjectiveKind | None) -> AsyncGenerator[str]:
        """Its text in pieces as it is written, from the beginning. Raises what the variable fails with."""
