"""Roots that are about to begin, told to the planner by those who begin them: compiled chains, and batches.

A batch of a sequence begins all its runs before any step runs, and `abatch` begins each in a task of its own,
where nothing shows what it belongs to. So `RunnableSequence.batch` and `abatch` are wrapped by a context
variable, and do what they always did.

It knows runnables and context variables, and plans nothing. The invariant: each input of an announcement is
begun once.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableSequence

from parrot_compat.integrations.plans.sessions import RunSession

from .groups import width_of

if TYPE_CHECKING:
    from .plans import RunPlan

__all__ = ["Announced", "announced", "announcement", "unannounced", "wrap_batches"]


class Announced:
    """What begins soon. `plan` is made when the first of it begins, for all of it."""

    def __init__(
        self,
        runnable: Any,
        inputs: Sequence[Any],
        arguments: Mapping[str, Any],
        *,
        streamed: bool = False,
        compiled: bool = False,
        width: int | None = None,
    ) -> None:
        self.runnable = runnable
        self.width = width
        self.inputs = inputs
        self.arguments = arguments
        self.streamed = streamed
        self.compiled = compiled
        self.session = RunSession()
        """Of all of them."""
        self.lock = threading.Lock()
        self.plan: RunPlan | None = None
        self.is_planned = False
        self._left = 0
        """Roots that had begun without the plan when it was made."""
        self._waiting = list(range(len(inputs)))

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    def begin(self, given: Any) -> bool:
        """A run begins with `given`. False if it is none of these."""
        with self.lock:
            for place, index in enumerate(self._waiting):
                # A stream's callback does not say its input; there is only one.
                if self.streamed or self.inputs[index] is given:
                    del self._waiting[place]
                    return True
        return False

    def take(self, plan: RunPlan) -> None:
        """The plan for all of it. Called with the lock held."""
        self.plan = plan
        for _ in range(self._left):
            plan.run_ended(failed=False)

    def leave(self) -> None:
        """A root that has begun goes without the plan."""
        with self.lock:
            if self.plan is None:
                self._left += 1
            else:
                self.plan.run_ended(failed=False)

    def end(self) -> None:
        """Who announced them is done: what has not begun does not begin any more, and the plan does not wait for it."""
        with self.lock:
            never, self._waiting = len(self._waiting), []
        for _ in range(never):
            if self.plan is not None:
                self.plan.run_ended(failed=True)


_announced: ContextVar[Announced | None] = ContextVar("parrot_announced", default=None)


def announcement() -> Announced | None:
    roots = _announced.get()
    return roots if roots is not None and roots.is_waiting else None


@contextmanager
def unannounced() -> Iterator[None]:
    """What begins within the block was not announced: what a stream is made of begins before the stream does."""
    token = _announced.set(None)
    try:
        yield
    finally:
        _announced.reset(token)


@contextmanager
def announced(roots: Announced) -> Iterator[None]:
    token = _announced.set(roots)
    try:
        yield
    finally:
        _announced.reset(token)
        roots.end()


@contextmanager
def _batch(sequence: Any, inputs: Sequence[Any], config: Any, arguments: Mapping[str, Any]) -> Iterator[None]:
    around = announcement()
    if around is not None and around.inputs is inputs:
        yield  # a compiled chain has announced it already
        return
    given = {name: value for name, value in arguments.items() if name != "return_exceptions"}
    with announced(Announced(sequence, inputs, given, width=width_of(config))):
        yield


def wrap_batches() -> None:
    """Once per process."""
    if hasattr(RunnableSequence.batch, "__wrapped__"):
        return
    sequence: Any = RunnableSequence
    sequence.batch = _wrapped(RunnableSequence.batch)
    sequence.abatch = _awrapped(RunnableSequence.abatch)


def _wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def batch(self: Any, inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        with _batch(self, inputs, config, kwargs):
            return method(self, inputs, config, **kwargs)

    return batch


def _awrapped(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def abatch(self: Any, inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        with _batch(self, inputs, config, kwargs):
            return await method(self, inputs, config, **kwargs)

    return abatch
