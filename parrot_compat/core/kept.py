"""What an open session keeps: how much memory its calls that are over and its variables take, counted for its tenant.

Sizes are about right (of CPython, 64 bits), so that a limit in bytes means something. It knows nothing of why they are
kept, and refuses only what nobody waits for on an open connection: who opens sessions for clients looks at
`Manager.has_room` before it lets such a call into one that stays.

The invariant: what admission counts for a tenant is what its open sessions keep.
"""

from __future__ import annotations

from collections.abc import Iterable
from sys import getsizeof

from .admission import Admission
from .call import Logprobs, TokenLogprobs
from .prefix import CHARS_PER_TOKEN
from .prompt import Prompt, TokensPrompt
from .rendering import about_tokens
from .task import Task

__all__ = ["VARIABLE_BYTES", "Kept", "size_of_call", "size_of_text"]

VARIABLE_BYTES = 1_000
"""Of one that has no text yet."""
_CALL = 5_000  # measured: task, variable, places in the graph and in a description of a call that says nothing
_ID = 40  # of a token: an int and its place
_LOGPROBS = 64
_ALTERNATIVE = 112


class Kept:
    """By one session."""

    def __init__(self, tenant: str, admission: Admission) -> None:
        self.size = 0
        """Bytes."""
        self._is_over = False
        self._tenant = tenant
        self._admission = admission

    def let_calls_in(self) -> None:
        """A session that keeps nothing yet may begin. Errors: `SessionFull`: its tenant keeps as much as it may."""
        if self.size:
            self._admission.let_keep(self._tenant, 0)

    def let_in(self, size: int) -> None:
        """Errors: `SessionFull` where so much more would be too much."""
        self._admission.let_keep(self._tenant, size)

    def add(self, size: int) -> None:
        """So much more is kept until the session ends."""
        if not self._is_over:
            self.size += size
            self._admission.keep(self._tenant, size)

    def add_call(self, task: Task) -> None:
        """It is over."""
        self.add(size_of_call(task))

    def end(self) -> None:
        """The session keeps nothing any more."""
        self.add(-self.size)
        self._is_over = True


def size_of_text(text: str) -> int:
    return getsizeof(text)


def size_of_call(task: Task) -> int:
    """Of a call that is over, and of its output."""
    size = _CALL + _size_of_prompt(task.call.prompt) + size_of_text(task.output.text_so_far)
    if (result := task.result) is None:
        return size
    size += size_of_text(result.text) + size_of_text(result.reasoning) + len(result.tokens) * _ID
    size += sum(size_of_text(call.arguments) for call in result.calls)
    return size + _size_of_logprobs(result.logprobs) + _size_of_logprobs(result.prompt_logprobs)


def _size_of_prompt(prompt: Prompt) -> int:
    return len(prompt.ids) * _ID if isinstance(prompt, TokensPrompt) else about_tokens(prompt) * CHARS_PER_TOKEN


def _size_of_logprobs(logprobs: Iterable[Logprobs | TokenLogprobs]) -> int:
    return sum(_LOGPROBS + _ALTERNATIVE * len(one.top) for one in logprobs)
