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
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.core.errors import BadTemplate, Cancelled, SessionFull, UnknownSession
from parrot_compat.core.template import TemplateForm

from .host import Host
from .lifetime import Opened, close_on
from .loop_thread import LoopThread, shared
from .output import Output
from .request import Bound, Request
from .variable import Variable, text_of

if TYPE_CHECKING:
    from .application import Application

__all__ = ["Session", "entered_session"]

Result = TypeVar("Result")

_entered: contextvars.ContextVar[Session | None] = contextvars.ContextVar("parrot_session", default=None)


def entered_session() -> Session | None:
    """The innermost session whose block the caller is in."""
    return _entered.get()


class Session:
    """Made by `Application.open_session`. Semantic functions called in its block belong to it."""

    def __init__(
        self, application: Application, name: str | None, ttl_s: float | None, *, is_default: bool = False
    ) -> None:
        """`is_default`: of calls that name none. The app does not know of it, so it is opened again once it has
        expired, and goes on in another session of the host once that one is full."""
        self.application = application
        self.name = name
        self.is_closed = False
        self.loop: LoopThread = application.loop
        self.host: Host = application.host
        self._ttl_s = ttl_s
        self._is_default = is_default
        self._outer: list[Session | None] = []
        self._lost: str | None = None
        """The id that the host did not know any more."""
        self._full: weakref.WeakSet[Opened] = weakref.WeakSet()
        """Those before: each ends when nobody holds a variable of it that was not read."""
        self._opened = self._begin()

    def _begin(self) -> Opened:
        return Opened(self.loop, self.host, self.name, self._ttl_s)

    @property
    def is_lost(self) -> bool:
        """The host does not have it, and never will again: it could not be opened, or has expired."""
        opened = self._opened
        return opened.has_failed or (opened.id.done() and opened.id.result() == self._lost)

    @property
    def id(self) -> str:
        """Waits until the host has opened the session."""
        return self.loop.run(shared(self._opened.id))

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
        made = [{name: Variable(self, name) for name in request.parsed.outputs} for _ in bindings]
        if made:
            self.loop.spawn(self._submit(request, bindings, made))
        return made

    def variable(self, text: str | int | float | None = None, *, name: str | None = None) -> Variable:
        """A variable that no call writes. Without a text it is written later, by its `set`. Errors: `BadTemplate` for
        what is neither a text nor a number."""
        self._must_be_open()
        variable = Variable(self, name or "variable")
        written = None if text is None else text_of(text, f"variable {variable.name!r}")
        self.loop.spawn(self._add_variable(variable, name, written))
        return variable

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
            self.loop.run(self._close())

    async def aclose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            await self.loop.arun(self._close())

    def close_soon(self) -> None:
        """As `close`, without waiting for it. Only what was read before is kept."""
        if not self.is_closed:
            self.is_closed = True
            for opened in (*self._full, self._opened):
                opened.let_go()

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
        made: Sequence[Mapping[str, Variable]],
    ) -> None:
        async def submit(session: str) -> list[dict[str, str]]:
            bound = [{name: await _bound(value, session) for name, value in one.items()} for one in bindings]
            with self.noting_loss(session):
                return await self.host.submit(session, request, bound)

        with _refusing([variable for one in made for variable in one.values()]):
            opened, accepted = await self._done(submit)
            for one, known in zip(made, accepted, strict=True):
                for name, variable in one.items():
                    variable.accept(opened, known[name])

    async def _add_variable(self, made: Variable, name: str | None, text: str | None) -> None:
        async def add(session: str) -> str:
            with self.noting_loss(session):
                return await self.host.add_variable(session, name, text)

        with _refusing([made]):
            made.accept(*await self._done(add))

    async def _done(self, act: Callable[[str], Awaitable[Result]]) -> tuple[Opened, Result]:
        """The session of the host, and what `act` made in it. It is done again in another one where the host says that
        it knows no such session, or that it is full: then it has done nothing."""
        begun: Opened | None = None
        while True:
            opened = self._opened
            session = await shared(opened.id)
            try:
                return opened, await act(session)
            except UnknownSession:
                if self._lost != session or self._must_stay_in(opened, begun):
                    raise
                opened.let_go()
            except SessionFull:
                if self._must_stay_in(opened, begun):
                    raise
                self._full.add(opened)
            if self._opened is opened:  # else another call has been here
                begun = self._opened = self._begin()

    def _must_stay_in(self, opened: Opened, begun: Opened | None) -> bool:
        return opened is begun or not self._is_default or self.is_closed

    async def _describe(self) -> dict[str, Any]:
        session = await shared(self._opened.id)
        with self.noting_loss(session):
            return await self.host.describe(session)

    async def _cancel(self) -> None:
        for full in tuple(self._full):
            with suppress(UnknownSession):  # it has ended by itself
                await self.host.cancel(await shared(full.id))
        session = await shared(self._opened.id)
        with self.noting_loss(session):
            await self.host.cancel(session)

    async def _close(self) -> None:
        for opened in (*self._full, self._opened):
            await close_on(self.host, opened.id)
            opened.let_go.detach()  # only now: a close that is broken off is made up for by the collector

    @contextmanager
    def noting_loss(self, session: str) -> Iterator[None]:
        """Where the host says that it knows no such session."""
        try:
            yield
        except UnknownSession:
            self._lost = session
            raise


@contextmanager
def _refusing(made: Sequence[Variable]) -> Iterator[None]:
    """Whatever goes wrong inside, those who wait for the variables learn of it."""
    try:
        yield
    except BaseException as error:
        cause = Cancelled("the application was closed") if isinstance(error, asyncio.CancelledError) else error
        for variable in made:
            if not variable.accepted.done():
                variable.accepted.set_exception(cause)


async def _bound(value: str | Variable, session: str) -> str | Bound:
    return value if isinstance(value, str) else await value.bound(session)
