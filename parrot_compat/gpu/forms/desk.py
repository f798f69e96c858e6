"""Where the forms of answers come from: compiled as they are needed, beside the steps if somebody says how to be woken.

It knows the sampling of commands, nothing of grammars, contexts or steps. A form of a big schema takes a tenth of a
second to compile, in which everybody else would stand still; so it is compiled in a thread of its own, and its command
waits in its line meanwhile. Time and memory of one are bounded by the library's limits (`grammar`), and there is one at
a time.

The invariant: a command that waits for a form is told of as soon as there is one, or an error in its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engine import Generate
from parrot_compat.core.engine_front import Command
from parrot_compat.core.errors import BadSchema
from parrot_compat.gpu.sequence import Form, Forms

__all__ = ["FormDesk"]

NO_LIBRARY = "llguidance is not installed (pip install llguidance)"


class FormDesk:
    def __init__(self, forms: Forms | None, engine: str) -> None:
        """`forms` is `None` where nothing can hold an answer to a form."""
        self._forms = forms
        self._engine = engine
        self._thread: ThreadPoolExecutor | None = None
        self._wake: Callable[[], None] = lambda: None
        self._asked: dict[int, Future[Form]] = {}
        self._ready: deque[int] = deque()

    def compile_aside(self, wake: Callable[[], None]) -> None:
        """From now on in a thread, which calls `wake` whenever a form is there."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forms")
        self._wake = wake

    def stop(self) -> None:
        """No other form is begun; nobody waits for the one at hand."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def has_news(self) -> bool:
        return bool(self._ready)

    @property
    def is_compiling(self) -> bool:
        return bool(self._asked)

    def take_ready(self) -> list[int]:
        """Commands that need wait no longer; perhaps some that have gone."""
        return [self._ready.popleft() for _ in range(len(self._ready))]

    def is_ready(self, command: Command) -> bool:
        """Whether the command's form can be had at once. Otherwise it is being compiled."""
        verb = command.verb
        if (
            self._forms is None
            or self._thread is None
            or not isinstance(verb, Generate)
            or verb.sampling.format is None
        ):
            return True
        asked = self._asked.get(command.id)
        if asked is None:
            asked = self._asked[command.id] = self._thread.submit(self._forms, verb.sampling)
            asked.add_done_callback(lambda _: self._tell(command.id))
        return asked.done()

    def take(self, command: int, sampling: ResolvedSampling) -> Form | None:
        """The form of a command that is ready. Errors: `BadSchema`."""
        if sampling.format is None:
            return None
        if self._forms is None:
            raise BadSchema(f"engine {self._engine!r} cannot hold an answer to a form: {NO_LIBRARY}")
        asked = self._asked.pop(command, None)
        return self._forms(sampling) if asked is None else asked.result()

    def forget(self, command: int) -> None:
        asked = self._asked.pop(command, None)
        if asked is not None:
            asked.cancel()

    def _tell(self, command: int) -> None:
        self._ready.append(command)
        self._wake()
