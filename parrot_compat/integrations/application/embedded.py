"""A manager in this process as the host of an app: the verbs of `Host` as calls of `core`.

It knows core and nothing of engines: whoever makes it says how its manager is started.

The invariant: the manager, and every engine it was given, lives in the application's own loop and ends with it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.core.errors import Cancelled
from parrot_compat.core.manager import Manager
from parrot_compat.core.prompt import Constant, Input, Segment
from parrot_compat.core.session import Session
from parrot_compat.core.transform import parse_transforms

from .request import Bound, Request

__all__ = ["EmbeddedHost"]

Start = Callable[[], AbstractAsyncContextManager[Manager]]
"""Starts a manager with its engines for as long as its block lasts."""
_CLOSED = "the embedded application is closed"


class EmbeddedHost:
    """Implements `Host`."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._stack = AsyncExitStack()
        self._manager: Manager | None = None
        self._starting = asyncio.Lock()
        self._loading: asyncio.Task[Manager] | None = None
        self._is_closed = False

    async def start(self) -> None:
        """Errors: `ModelRefused`, `EngineError`; it may then be tried again. `Cancelled` if it is closed meanwhile."""
        async with self._starting:
            if self._manager is not None:
                return
            if self._is_closed:
                raise Cancelled(_CLOSED)
            self._loading = asyncio.create_task(self._stack.enter_async_context(self._start()))
            try:
                self._manager = await self._loading
            except asyncio.CancelledError:
                if self._is_closed:
                    raise Cancelled(_CLOSED) from None
                raise

    async def close(self) -> None:
        """What is being loaded is given up."""
        self._is_closed = True
        if self._loading is not None:
            self._loading.cancel()
        async with self._starting:
            self._manager = None
            await self._stack.aclose()

    # ---- sessions --------------------------------------------------------------------------------------

    async def open_session(self, name: str | None, ttl_s: float | None) -> str:
        return self.manager.open_session(name=name, ttl_s=ttl_s).id

    async def close_session(self, session: str) -> None:
        await self._session(session).close()

    async def cancel(self, session: str) -> None:
        self._session(session).cancel()

    async def describe(self, session: str) -> dict[str, Any]:
        return self._session(session).describe()

    # ---- calls -----------------------------------------------------------------------------------------

    async def submit(
        self, session: str, request: Request, bindings: Sequence[Mapping[str, str | Bound]]
    ) -> list[dict[str, str]]:
        accepted = await self._session(session).call_each(
            request.parsed,
            [{name: _segment(value) for name, value in bound.items()} for bound in bindings],
            outputs={name: request.output(name).sampling() for name in request.parsed.outputs},
            form=request.form,
            function=request.function,
            model=request.model,
            objective=request.objective,
        )
        return [{name: task.output.name for name, task in tasks.items()} for tasks in accepted]

    # ---- variables -------------------------------------------------------------------------------------

    async def add_variable(self, session: str, name: str | None, text: str | None) -> str:
        opened = self._session(session)
        name = name or f"variable-{uuid.uuid4().hex}"
        return (opened.declare(name) if text is None else opened.set(name, text)).name

    async def write(self, session: str, variable: str, text: str) -> None:
        opened = self._session(session)
        opened.variable(variable)  # it must be there: `set` would make it
        opened.set(variable, text)

    async def read(self, session: str, variable: str, *, wait_s: float, objective: ObjectiveKind | None) -> str | None:
        return await self._session(session).read(variable, wait_s, objective)

    async def stream(self, session: str, variable: str, *, objective: ObjectiveKind | None) -> AsyncGenerator[str]:
        async for piece in self._session(session).stream(variable, objective):
            yield piece

    # ---- inside ----------------------------------------------------------------------------------------

    @property
    def manager(self) -> Manager:
        if self._manager is None:
            raise Cancelled(_CLOSED)
        return self._manager

    def _session(self, id: str) -> Session:
        return self.manager.session(id)


def _segment(value: str | Bound) -> Segment:
    return Constant(value) if isinstance(value, str) else Input(value.variable, parse_transforms(value.transforms))
