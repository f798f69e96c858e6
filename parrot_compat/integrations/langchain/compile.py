"""`compile(chain)`: planning said out loud. The chain does what it did; its runs are announced to the planner.

It knows runnables and announcements. Where PARROT_PLANNING is `compiled`, this is the only way to be planned,
and no frames are looked at.

The invariant: a compiled chain has the results, callbacks and traces of the chain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any, ClassVar, TypeVar, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import var_child_runnable_config

from . import planner as _planner  # the handler must be there before a run begins
from .announce import Announced, announced, unannounced
from .groups import width_of
from .values import UNKNOWN

__all__ = ["CompiledRunnable", "compile"]

Input = TypeVar("Input")
Output = TypeVar("Output")
_NOTHING = object()
assert _planner


def compile(chain: Runnable[Input, Output]) -> CompiledRunnable[Input, Output]:
    """The same chain, planned whenever it is run.

    ```python
    app = parrot_compat.compile(summarise.map() | bullets | combine)
    app.invoke(chapters)
    ```
    """
    if isinstance(chain, CompiledRunnable):
        return chain
    return CompiledRunnable(bound=chain)


class CompiledRunnable(RunnableBindingBase[Input, Output]):
    """A chain whose runs are announced."""

    __parrot_compiled__: ClassVar[bool] = True

    def _announced(
        self, inputs: list[Any], config: Any, arguments: dict[str, Any], *, streamed: bool = False
    ) -> Announced:
        width = width_of(config or var_child_runnable_config.get())
        given = {**self.kwargs, **arguments}
        return Announced(self.bound, inputs, given, streamed=streamed, compiled=True, width=width)

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        with announced(self._announced([input], config, kwargs)):
            return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        with announced(self._announced([input], config, kwargs)):
            return await super().ainvoke(input, config, **kwargs)

    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        with announced(self._announced(inputs, config, kwargs)):
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        with announced(self._announced(inputs, config, kwargs)):
            return await super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)

    def stream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Output]:
        roots = self._announced([input], config, kwargs, streamed=True)
        return _begun(super().stream(input, config, **kwargs), roots)

    def astream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Output]:
        roots = self._announced([input], config, kwargs, streamed=True)
        return _abegun(super().astream(input, config, **kwargs), roots)

    def transform(
        self, input: Iterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Output]:
        """A step of a chain that is streamed. What it is given is known to its own steps, as they begin."""
        roots = self._announced([UNKNOWN], config, kwargs, streamed=True)
        return _begun(super().transform(_apart(input), config, **kwargs), roots)

    def atransform(
        self, input: AsyncIterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        roots = self._announced([UNKNOWN], config, kwargs, streamed=True)
        return _abegun(super().atransform(_aapart(input), config, **kwargs), roots)

    # ---- what LangChain makes of the above, where a binding would pass them by ---------------------------

    batch_as_completed = Runnable.batch_as_completed
    abatch_as_completed = Runnable.abatch_as_completed

    def astream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Of the form `v3`, which only graphs and models have, a binding's own: that is not announced."""
        if {**self.kwargs, **kwargs}.get("version", "v2") == "v3":
            return super().astream_events(input, config, **kwargs)
        return Runnable.astream_events(self, input, config, **kwargs)


def _begun(chunks: Iterator[Output], roots: Announced) -> Iterator[Output]:
    """The run begins with the first chunk; what the app does between chunks is not announced."""
    with closing(cast("Any", chunks)):
        with announced(roots):
            first = next(chunks, _NOTHING)
        if first is not _NOTHING:
            yield cast("Output", first)
            yield from chunks


async def _abegun(chunks: AsyncIterator[Output], roots: Announced) -> AsyncIterator[Output]:
    async with aclosing(cast("Any", chunks)):
        with announced(roots):
            first = await anext(chunks, _NOTHING)
        if first is not _NOTHING:
            yield cast("Output", first)
            async for chunk in chunks:
                yield chunk


def _apart(input: Iterator[Any]) -> Iterator[Any]:
    while True:
        with unannounced():
            chunk = next(input, _NOTHING)
        if chunk is _NOTHING:
            return
        yield chunk


async def _aapart(input: AsyncIterator[Any]) -> AsyncIterator[Any]:
    while True:
        with unannounced():
            chunk = await anext(input, _NOTHING)
        if chunk is _NOTHING:
            return
        yield chunk
