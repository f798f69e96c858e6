"""A session as an app holds it: the same whether a server runs it or this process does.

    with application.open_session() as session:
        made = session.call("Write {{input:what}}: {{output:code}}", {"what": "a sort"})
        test = session.call("Test this: {{input:code}} {{output:test}}", {"code": made["code"].transform("strip")})
        print(test["test"].get())              # or: await test["test"]

`call` never waits: it hands the call over and returns its variables at once, so that a call may read the outputs of
another which has not even begun. What the host refuses arrives where the variables are read.

The invariant: nothing of a session that was closed, or that nobody holds any more, still runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.core.errors import BadTemplate, Cancelled, ParrotError, UnknownSession
from parrot_compat.core.template import TemplateForm

from .host import Host, ServerUnreachable
from .loop_thread import LoopThread, shared
from .output import Output
from .request import Bound, Request
from .variable import Variable

if TYPE_CHECKING:
    from .application import Application

__all__ = ["Session", "entered_session"]

_entered: contextvars.ContextVar[Session | None] = contextvars.ContextVar("parrot_session", default=None)


def entered_session() -> Session | None:
    """The innermost session whose block the caller is in."""
    return _entered.get()


class Session:
    """Made by `Application.open_session`. Semantic functions called in its block belong to it."""

    def __init__(self, application: Application, name: str | None, ttl_s: float | None) -> None:
        self.application = application
        self.name = name
        self.is_closed = False
        self.loop: LoopThread = application.loop
        self.host: Host = application.host
        self.opened: Future[str] = self.loop.spawn(_open(self.host, name, ttl_s))
        """The host's id of it, as soon as it is known."""
        self._outer: list[Session | None] = []
        self._has_expired = False
        self._let_go = weakref.finalize(self, _let_go, self.loop, self.host, self.opened)
        self._let_go.atexit = False
        # A failure holds the frames that it went through, and this session with them.
        self.opened.add_done_callback(partial(_unless_it_failed, self._let_go))

    @property
    def is_lost(self) -> bool:
        """The host does not have it, and never will again: it could not be opened, or has expired."""
        return self._has_expired or _has_failed(self.opened)

    @property
    def id(self) -> str:
        """Waits until the host has opened the session."""
        return self.loop.run(shared(self.opened))

    # ---- calls and variables -----------------------------------------------------------------------------

    def call(
        self,
        template: str,
        bindings: Mapping[str, str | Variable] | None = None,
        *,
        outputs: Mapping[str, Output] | None = None,
        sampling: Output | None = None,
        form: TemplateForm = "chat",
        function: str | None = None,
        model: str | None = None,
        objective: ObjectiveKind | None = None,
    ) -> dict[str, Variable]:
        """Hand a call over and return its outputs by name, at once. An input that is a variable is an edge of the
        graph: the call runs as soon as the variable has its text. Errors: `BadTemplate`, and nothing was handed over.

        `sampling` is of every output, `outputs` of those it names; what both leave open is the server's to decide.
        """
        request = Request(
            template=template,
            sampling=sampling or Output(),
            outputs=outputs or {},
            form=form,
            function=function,
            model=model,
            objective=objective,
        )
        return self.call_each(request, [bindings or {}])[0]

    def call_each(
        self, request: Request, bindings: Sequence[Mapping[str, str | Variable]]
    ) -> list[dict[str, Variable]]:
        """The request over each of the bindings: all are accepted, as one group, or none. Errors: as `call`."""
        self._must_be_open()
        for bound in bindings:
            request.check(bound)
            for name, value in bound.items():
                self._must_take(name, value)
        made = [{name: Variable(self, name, Future()) for name in request.parsed.outputs} for _ in bindings]
        if made:
            ids = [{name: variable.accepted for name, variable in one.items()} for one in made]
            self.loop.spawn(self._submit(request, bindings, ids))
        return made

    def variable(self, text: str | None = None, *, name: str | None = None) -> Variable:
        """A variable that no call writes. Without a text it is written later, by its `set`."""
        self._must_be_open()
        return Variable(self, name or "variable", self.loop.spawn(self._add_variable(name, text)))

    # ---- the whole of it ---------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """The graph as the host sees it now: every call with its state, times and tokens, and every variable."""
        return self.loop.run(self._describe())

    async def adescribe(self) -> dict[str, Any]:
        return await self.loop.arun(self._describe())

    def cancel(self) -> None:
        """End every call that is not over: its outputs fail with `Cancelled`. The session stays open."""
        self.loop.run(self._cancel())

    async def acancel(self) -> None:
        await self.loop.arun(self._cancel())

    def close(self) -> None:
        """Cancel what still runs, and have the host forget everything. Variables keep what was read of them."""
        if not self.is_closed:
            self.is_closed = True
            self.loop.run(_close(self.host, self.opened))
            self._let_go.detach()  # only now: a close that is broken off is made up for by the collector

    async def aclose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            await self.loop.arun(_close(self.host, self.opened))
            self._let_go.detach()  # only now: a close that is broken off is made up for by the collector

    def close_soon(self) -> None:
        """As `close`, without waiting for it. Only what was read before is kept."""
        if not self.is_closed:
            self.is_closed = True
            self._let_go()

    def __enter__(self) -> Session:
        self._outer.append(_entered.get())
        _entered.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _entered.set(self._outer.pop())
        self.close()

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _entered.set(self._outer.pop())
        await self.aclose()

    # ---- inside ------------------------------------------------------------------------------------------

    def _must_be_open(self) -> None:
        if self.is_closed:
            raise UnknownSession("this session is closed")

    def _must_take(self, name: str, value: object) -> None:
        if isinstance(value, Variable):
            if value.session is not self:
                raise BadTemplate(
                    f"input {name!r} is variable {value.name!r} of another session: a graph is in one session",
                    "bindings",
                )
        elif not isinstance(value, str):
            raise BadTemplate(
                f"input {name!r} is a {type(value).__name__}; it must be a text or a variable", "bindings"
            )

    async def _submit(
        self,
        request: Request,
        bindings: Sequence[Mapping[str, str | Variable]],
        made: Sequence[Mapping[str, Future[str]]],
    ) -> None:
        try:
            session = await shared(self.opened)
            bound = [{name: await _bound(value) for name, value in one.items()} for one in bindings]
            accepted = await self.host.submit(session, request, bound)
        except BaseException as error:  # whatever it is, those who wait for the variables learn of it
            cause = Cancelled("the application was closed") if isinstance(error, asyncio.CancelledError) else error
            self._has_expired = self._has_expired or isinstance(error, UnknownSession)
            for id in (id for one in made for id in one.values()):
                id.set_exception(cause)
        else:
            for one, known in zip(made, accepted, strict=True):
                for name, id in one.items():
                    id.set_result(known[name])

    async def _add_variable(self, name: str | None, text: str | None) -> str:
        return await self.host.add_variable(await shared(self.opened), name, text)

    async def _describe(self) -> dict[str, Any]:
        return await self.host.describe(await shared(self.opened))

    async def _cancel(self) -> None:
        await self.host.cancel(await shared(self.opened))


def _has_failed(opened: Future[str]) -> bool:
    return opened.done() and (opened.cancelled() or opened.exception() is not None)


def _unless_it_failed(let_go: weakref.finalize[..., Any], opened: Future[str]) -> None:
    if _has_failed(opened):
        let_go.detach()


async def _bound(value: str | Variable) -> str | Bound:
    return value if isinstance(value, str) else await value.bound()


async def _open(host: Host, name: str | None, ttl_s: float | None) -> str:
    await host.start()
    return await host.open_session(name, ttl_s)


async def _close(host: Host, opened: Future[str]) -> None:
    try:
        session = await shared(opened)
    except ParrotError:
        return  # it never was
    with suppress(UnknownSession, ServerUnreachable):  # it is closed already, or its server is gone
        await host.close_session(session)


def _let_go(loop: LoopThread, host: Host, opened: Future[str]) -> None:
    """Nobody holds the session any more. The collector may run anywhere, so this must not wait."""
    with suppress(Cancelled, RuntimeError):
        loop.spawn(_close(host, opened))
