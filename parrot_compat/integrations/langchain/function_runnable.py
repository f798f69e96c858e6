"""Semantic functions as LangChain Runnables: `prompt_values | write_code | parser`, batch, stream, config.

It knows LangChain's verbs and what a semantic function is; where its calls run is the application's.

The invariant: a run that joins no session opens its own and closes it, so that nothing of it is left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, ParamSpec, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.pydantic import create_model_v2
from pydantic import BaseModel

from parrot_compat.core.errors import BadTemplate
from parrot_compat.integrations.application.application import current_application
from parrot_compat.integrations.application.functions import SemanticFunction
from parrot_compat.integrations.application.outputs import Outputs
from parrot_compat.integrations.application.request import Request
from parrot_compat.integrations.application.session import Session, entered_session
from parrot_compat.integrations.application.variable import Variable

__all__ = ["RunnableFunction"]

P = ParamSpec("P")
R = TypeVar("R")


class RunnableFunction(SemanticFunction[P, R], Runnable[Any, Any]):
    """Takes its inputs by name, or the one input by itself. Gives the text of its output, or of several by name."""

    def __init__(self, function: Any, request: Request) -> None:
        super().__init__(function, request)
        self.name = request.function

    # ---- running ---------------------------------------------------------------------------------------

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        def run(input: Any) -> Any:
            values = self._named(input, kwargs)
            with self._room([values]) as session:
                return self._given(self._call(session, values).get())

        return self._call_with_config(run, input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        async def run(input: Any) -> Any:
            values = self._named(input, kwargs)
            with self._room([values]) as session:
                return self._given(await self._call(session, values).aget())

        return await self._acall_with_config(run, input, config)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        def run(inputs: Iterator[Any]) -> Iterator[Any]:
            values = self._named(next(inputs), kwargs)
            with self._room([values]) as session:
                for name, variable in self._call(session, values).items():
                    for piece in variable.stream():
                        yield self._piece(name, piece)

        yield from self._transform_stream_with_config(iter([input]), run, config)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        async def given() -> AsyncIterator[Any]:
            yield input

        async def run(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
            values = self._named(await anext(inputs), kwargs)
            with self._room([values]) as session:
                for name, variable in self._call(session, values).items():
                    async with aclosing(variable.astream()) as pieces:
                        async for piece in pieces:
                            yield self._piece(name, piece)

        async for piece in self._atransform_stream_with_config(given(), run, config):
            yield piece

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """The inputs side by side, as one group. How many run at once is the server's to decide, and not
        `max_concurrency`'s."""

        def run(inputs: list[Any]) -> list[Any]:
            bound = self._bound(inputs, kwargs, return_exceptions)
            each = [one for one in bound if not isinstance(one, Exception)]
            with self._room(each) as session:
                calls = [Outputs(variables) for variables in session.call_each(self.request, each)]
                return _in_place(bound, [_result(call.get, self._given) for call in calls])

        return self._batch_with_config(run, inputs, config, return_exceptions=return_exceptions)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any | None,
    ) -> list[Any]:
        async def run(inputs: list[Any]) -> list[Any]:
            bound = self._bound(inputs, kwargs, return_exceptions)
            each = [one for one in bound if not isinstance(one, Exception)]
            with self._room(each) as session:
                calls = [Outputs(variables) for variables in session.call_each(self.request, each)]
                results = await asyncio.gather(*(call.aget() for call in calls), return_exceptions=True)
            given = [result if isinstance(result, BaseException) else self._given(result) for result in results]
            return _in_place(bound, given)

        return await self._abatch_with_config(run, inputs, config, return_exceptions=return_exceptions)

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """With lists, `SemanticFunction.map`; with nothing, LangChain's: a Runnable over lists of inputs."""
        return super().map(*args, **kwargs) if args or kwargs else Runnable.map(self)

    # ---- what it takes and gives -------------------------------------------------------------------------

    @property
    def InputType(self) -> Any:
        return str | dict[str, Any]

    @property
    def OutputType(self) -> Any:
        return str if len(self.request.parsed.outputs) == 1 else dict[str, str]

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        fields: dict[str, Any] = {
            name: (str, ... if parameter.default is parameter.empty else parameter.default)
            for name, parameter in self.signature.parameters.items()
        }
        return create_model_v2(self.get_name("Input"), field_definitions=fields)

    # ---- inside ------------------------------------------------------------------------------------------

    def _named(self, input: Any, more: Mapping[str, Any]) -> dict[str, str | Variable]:
        """Inputs by name: those given, and those that were bound (`function.bind(style="short")`)."""
        if isinstance(input, Mapping):
            named = {**input, **more}
            if unknown := set(named) - set(self.signature.parameters):
                raise BadTemplate(f"{self.get_name()} has no input {', '.join(sorted(unknown))}", "bindings")
        else:
            open_ = [name for name in self.signature.parameters if name not in more]
            if len(open_) != 1:
                raise BadTemplate(
                    f"{self.get_name()} has the inputs {', '.join(open_)}: give them by name, as a dict", "bindings"
                )
            named = {open_[0]: input, **more}
        return self._values((), named)

    def _bound(
        self, inputs: Sequence[Any], more: Mapping[str, Any], keeps_errors: bool
    ) -> list[dict[str, str | Variable] | Exception]:
        """Of each input its values, or where `keeps_errors` says so, what is wrong with it."""
        bound: list[dict[str, str | Variable] | Exception] = []
        for input in inputs:
            try:
                values = self._named(input, more)
                self.request.check(values)
                bound.append(values)
            except Exception as error:
                if not keeps_errors:
                    raise
                bound.append(error)
        return bound

    @contextmanager
    def _room(self, each: list[dict[str, str | Variable]]) -> Iterator[Session]:
        """The session of a run. One of its own ends with the run, which does not wait for that."""
        joined = next((session for values in each if (session := self.joined_session(values))), entered_session())
        if joined is not None:
            yield joined
            return
        session = current_application().open_session(self.get_name())
        try:
            yield session
        finally:
            session.close_soon()

    def _call(self, session: Session, values: dict[str, str | Variable]) -> Outputs:
        (variables,) = session.call_each(self.request, [values])
        return Outputs(variables)

    def _given(self, texts: dict[str, str]) -> Any:
        return texts if len(texts) > 1 else next(iter(texts.values()))

    def _piece(self, name: str, piece: str) -> Any:
        return AddableDict({name: piece}) if len(self.request.parsed.outputs) > 1 else piece


def _in_place(bound: Sequence[object], results: Iterable[Any]) -> list[Any]:
    """The errors where they were, and the results of the others, in order."""
    others = iter(results)
    return [one if isinstance(one, Exception) else next(others) for one in bound]


def _result(get: Callable[[], dict[str, str]], given: Callable[[dict[str, str]], Any]) -> Any:
    try:
        return given(get())
    except Exception as error:  # one of many: LangChain decides whether the others count
        return error
