"""A variable of a session, as an app holds it: a text that is there, or will be.

It knows nothing of where its session runs.

The invariant: a text that was read once is not asked for again, through whichever view; a reader that leaves
disturbs no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.core.errors import BadTemplate, ParrotError, TransformFailed, UnknownSession, UpstreamFailed
from parrot_compat.core.transform import parse_transforms

from .lifetime import Opened
from .loop_thread import shared
from .request import Bound

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Variable", "text_of"]

WAIT_S = 30.0
"""Of one request for a text; where it has none by then, the next one follows."""


def text_of(value: object, what: str) -> str:
    """Errors: `BadTemplate`, which says `what` it was for."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise BadTemplate(f"{what} is given a {type(value).__name__}; it must be a text or a number")


class Variable:
    """Read it by `get`, `stream` or `await`; bind it to an input of another call as it is."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.name = name
        self.accepted: Future[str] = Future()
        """The host's id of it, as soon as its call is accepted."""
        self._known = _Known()
        self._transforms: tuple[Any, ...] = ()

    # ---- reading ---------------------------------------------------------------------------------------

    def get(self, *, objective: ObjectiveKind | None = None, timeout_s: float | None = None) -> str:
        """Wait for the text. `objective` says what it is awaited for: "latency", "throughput" or "background"; what is
        not said is deduced. Errors: what its call was refused or failed with, `UpstreamFailed`, `TimeoutError`."""
        text = self._here()
        return self.session.loop.run(self._get(objective, timeout_s)) if text is None else text

    async def aget(self, *, objective: ObjectiveKind | None = None, timeout_s: float | None = None) -> str:
        text = self._here()
        return text if text is not None else await self.session.loop.arun(self._get(objective, timeout_s))

    def __await__(self) -> Generator[Any, None, str]:
        return self.aget().__await__()

    def stream(self, *, objective: ObjectiveKind | None = None) -> Iterator[str]:
        """The text in pieces, as it is written. Through a transform it comes whole. Errors: as `get`."""
        text = self._here()
        return self.session.loop.iterate(self._pieces(objective)) if text is None else iter((text,))

    def astream(self, *, objective: ObjectiveKind | None = None) -> AsyncGenerator[str]:
        text = self._here()
        return self.session.loop.aiterate(self._pieces(objective)) if text is None else _whole(text)

    def transform(self, *transforms: Any) -> Variable:
        """This variable as seen through transforms: `"strip"`, `{"regex": "x=(.*)"}`, … A call may read it so before it
        has a text: they are applied where the call runs. Errors: `BadTemplate` where there is no such transform."""
        parse_transforms(transforms)
        view = Variable(self.session, self.name)
        view.accepted, view._known = self.accepted, self._known
        view._transforms = (*self._transforms, *transforms)
        return view

    # ---- writing ---------------------------------------------------------------------------------------

    def set(self, text: str | int | float) -> None:
        """Write a variable that was declared without a text; a number as its text. Errors: `AlreadySettled`, and
        `BadTemplate` for what is neither."""
        self.session.loop.run(self._set(text_of(text, f"variable {self.name!r}")))

    async def aset(self, text: str | int | float) -> None:
        await self.session.loop.arun(self._set(text_of(text, f"variable {self.name!r}")))

    def __repr__(self) -> str:
        text = self._known.text
        return f"<variable {self.name!r}>" if text is None else f"<variable {self.name!r}: {text!r}>"

    def __format__(self, spec: str) -> str:
        """Not in a text: a model would be told of a variable, and nobody would notice. (`str` and `repr` show it.)"""
        raise TypeError(f"variable {self.name!r} is no text: pass it to a function as it is, or read it with get()")

    # ---- inside, in the session's loop -------------------------------------------------------------------

    def accept(self, opened: Opened, id: str) -> None:
        """In this session of the host, by the host's id."""
        self._known.opened, self._known.session = opened, opened.id.result()
        self.accepted.set_result(id)

    async def bound(self, session: str) -> Bound | str:
        """As an input of another call in this session of the host: where it was in another one, its text. Errors:
        `UpstreamFailed` where its own call was refused or has failed, `UnknownSession` where that session has ended and
        the text was not read before."""
        try:
            id = await shared(self.accepted)
        except UpstreamFailed as error:
            raise UpstreamFailed(self.name, error.cause) from error
        except ParrotError as error:
            raise UpstreamFailed(self.name, error) from error
        if self._known.session == session:
            return Bound(variable=id, transforms=self._transforms)
        try:
            return await self._get(None, None)
        except (TransformFailed, UnknownSession):
            raise
        except ParrotError as error:
            raise UpstreamFailed(self.name, error) from error

    async def _get(self, objective: ObjectiveKind | None, timeout_s: float | None) -> str:
        host, known = self.session.host, self._known
        async with asyncio.timeout(timeout_s):
            while known.text is None:
                id = await shared(self.accepted)
                with self.session.noting_loss(known.session):
                    known.text = await host.read(known.session, id, wait_s=WAIT_S, objective=objective)
            known.opened = None
        return self._seen(known.text)

    def _here(self) -> str | None:
        """Its text, if it was read before: nobody need be asked, and the session may be over."""
        return None if self._known.text is None else self._seen(self._known.text)

    def _seen(self, text: str) -> str:
        for transform in parse_transforms(self._transforms):
            text = transform.apply(text)
        return text

    async def _pieces(self, objective: ObjectiveKind | None) -> AsyncGenerator[str]:
        if self._transforms or self._known.text is not None:
            yield await self._get(objective, None)
            return
        id, known = await shared(self.accepted), self._known
        pieces: list[str] = []
        with self.session.noting_loss(known.session):
            async for piece in self.session.host.stream(known.session, id, objective=objective):
                pieces.append(piece)
                yield piece
        known.text, known.opened = "".join(pieces), None

    async def _set(self, text: str) -> None:
        id = await shared(self.accepted)
        with self.session.noting_loss(self._known.session):
            await self.session.host.write(self._known.session, id, text)


async def _whole(text: str) -> AsyncGenerator[str]:
    yield text


class _Known:
    """What is known of a variable, shared by all views of it."""

    __slots__ = ("opened", "session", "text")

    def __init__(self) -> None:
        self.opened: Opened | None = None
        """Held until the text was read: then nobody need be asked."""
        self.session = ""
        """The host's id of its session, as soon as its call is accepted."""
        self.text: str | None = None
        """Once it was read."""
