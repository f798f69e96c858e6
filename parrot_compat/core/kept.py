"""What an open session keeps: how much memory its calls that are over, its variables and the requests of its open plans
take, counted for its tenant.

Sizes are about right (of CPython, 64 bits), so that a limit in bytes means something: a text that many prompts share is
there once, and counts once. It knows nothing of why they are kept, and refuses only what nobody waits for on an open
connection: who opens sessions for clients looks at `Manager.has_room` before it lets such a call into one that stays.

The invariant: what admission counts for a tenant is what its open sessions keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from sys import getsizeof
from typing import Any

from .admission import Admission
from .call import Logprobs, TokenLogprobs
from .prompt import ChatPrompt, Constant, Prompt, TokensPrompt, segments_of
from .task import Task

__all__ = ["VARIABLE_BYTES", "Kept", "size_of_body", "size_of_text"]

VARIABLE_BYTES = 1_000
"""Of one that has no text yet."""
_CALL = 5_000  # measured: task, variable, places in the graph and in a description of a call that says nothing
_LONG = 1_000  # bytes of a text: that a shorter one is there once already is not worth remembering
_ID = 40  # of a token: an int and its place
_NUMBER = 24
_LOGPROBS = 64
_ALTERNATIVE = 112


class Kept:
    """By one session."""

    def __init__(self, tenant: str, admission: Admission) -> None:
        self.size = 0
        """Bytes."""
        self._is_over = False
        self._texts: set[int] = set()
        """Ids of long texts in prompts that are counted. The session holds its calls, and these their prompts, until it
        ends: no other text gets such an id meanwhile."""
        self._tenant = tenant
        self._admission = admission

    def let_calls_in(self) -> None:
        """Errors: `SessionFull`: its tenant keeps as much as it may (`Admission.let_keep`)."""
        self._admission.let_keep(self._tenant, 0, own=self.size)

    def let_in(self, size: int) -> None:
        """Errors: `SessionFull` where so much more would be too much."""
        self._admission.let_keep(self._tenant, size, own=self.size)

    def must_have_room(self) -> None:
        """Whatever this session keeps. Errors: `SessionFull`."""
        self._admission.let_keep(self._tenant, 1)

    def add(self, size: int) -> None:
        """So much more is kept until the session ends."""
        if not self._is_over:
            self.size += size
            self._admission.keep(self._tenant, size)

    def add_call(self, task: Task) -> None:
        """It is over."""
        if not self._is_over:
            self.add(_size_of_answer(task) + self._size_of_prompt(task.call.prompt))

    def end(self) -> None:
        """The session keeps nothing any more."""
        self.add(-self.size)
        self._is_over = True
        self._texts.clear()

    def _size_of_prompt(self, prompt: Prompt) -> int:
        """Beside the texts that are counted already."""
        if isinstance(prompt, TokensPrompt):
            return len(prompt.ids) * _ID
        size = 0
        for segment in segments_of(prompt):
            if isinstance(segment, Constant) and id(segment.text) not in self._texts:
                text_size = size_of_text(segment.text)
                size += text_size
                if text_size >= _LONG:
                    self._texts.add(id(segment.text))
        if isinstance(prompt, ChatPrompt):
            size += sum(_size_of_value(message.fields) for message in prompt.messages) + _size_of_value(prompt.tools)
        return size


def size_of_text(text: str) -> int:
    return getsizeof(text)  # a character takes up to four bytes


def _size_of_answer(task: Task) -> int:
    """Of a call that is over, and of its output; not of its prompt."""
    size = _CALL + size_of_text(task.output.text_so_far)
    if (result := task.result) is None:
        return size
    size += sum(map(size_of_text, (result.text, result.reasoning, result.refusal))) + len(result.tokens) * _ID
    size += sum(size_of_text(call.arguments) for call in result.calls)
    return size + _size_of_logprobs(result.logprobs) + _size_of_logprobs(result.prompt_logprobs)


def size_of_body(body: Mapping[str, Any], prompt: Prompt) -> int:
    """Of a request as it was given, beside the texts that its prompt has from it."""
    return _size_of_value(body, {id(part.text) for part in segments_of(prompt) if isinstance(part, Constant)})


def _size_of_value(value: Any, known: AbstractSet[int] = frozenset()) -> int:
    """Calls of tools, reasoning, schemas, whole requests; without texts whose ids are known."""
    match value:
        case str():
            return 0 if id(value) in known else size_of_text(value)
        case int() | float() | None:
            return _NUMBER
        case Mapping():
            parts = (size_of_text(str(name)) + _size_of_value(member, known) for name, member in value.items())
        case list() | tuple():
            parts = (_size_of_value(member, known) for member in value)
        case _:
            return 0
    return getsizeof(value) + sum(parts)


def _size_of_logprobs(logprobs: Iterable[Logprobs | TokenLogprobs]) -> int:
    return sum(_LOGPROBS + _ALTERNATIVE * len(one.top) for one in logprobs)
