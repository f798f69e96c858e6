"""What an open session keeps: how much memory its calls that are over, its variables and the requests of its open plans
take, counted for its tenant.

Sizes are about right (of CPython, 64 bits), so that a limit in bytes means something: what many calls share (a text, a
message, a tool) is there once, and counts once. It knows nothing of why they are kept, and refuses only what nobody
waits for on an open connection: who opens sessions for clients looks at `Manager.has_room` before it lets such a call
into one that stays.

The invariant: what admission counts for a tenant is what its open sessions keep.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from sys import getsizeof
from typing import Any, TypeVar

from .admission import Admission
from .call import Call, Logprobs, TokenLogprobs
from .interning import LONG, Held, Interning
from .output_format import AnyJson, Choice, Grammar, JsonSchema, OutputFormat, Regex, ToolCalls
from .prompt import ChatPrompt, Constant, Message, Prompt, Segment, TextPrompt, TokensPrompt, segments_of
from .task import Task

__all__ = ["VARIABLE_BYTES", "Kept", "size_of_body", "size_of_copies", "size_of_text"]

Some = TypeVar("Some")

VARIABLE_BYTES = 1_000
"""Of one that has no text yet."""
_CALL = 5_000  # measured: task, variable, places in the graph and in a description of a call that says nothing
_MESSAGE = 400  # beside its texts and fields: what it is known again by as well
_ID = 40  # of a token: an int and its place
_NUMBER = 24
_LOGPROBS = 64
_ALTERNATIVE = 112


class Kept:
    """By one session."""

    def __init__(self, tenant: str, admission: Admission) -> None:
        self.size = 0
        """Bytes."""
        self.is_measured = True
        """False: it ends with the one request that opened it, so that its calls are neither interned nor counted: that
        would take every such request some time."""
        self._is_over = False
        self._held: Held = {}
        self._counted: set[int] = set()
        """Ids of what calls share and is counted. The session holds its calls until it ends, and they hold these:
        nothing else gets such an id meanwhile."""
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

    @asynccontextmanager
    async def interned(self, calls: Sequence[Call]) -> AsyncIterator[Sequence[Call]]:
        """The calls as they are to be submitted within the block. Of those that are refused nothing is remembered."""
        if not self.is_measured:
            yield calls
            return
        interning = Interning(self._held)
        yield await interning.calls(calls)
        if not self._is_over:
            interning.hold()

    def follow(self, tasks: Iterable[Task]) -> None:
        """They were accepted: each counts once it is over."""
        for task in tasks if self.is_measured else ():
            task.when_over(self._add_call)

    def end(self) -> None:
        """The session keeps nothing any more."""
        self.add(-self.size)
        self._is_over = True
        self._held.clear()
        self._counted.clear()

    # ---- inside ----------------------------------------------------------------------------------------

    def _add_call(self, task: Task) -> None:
        if not self._is_over:
            self.add(_size_of_answer(task) + self._size_of_call(task.call))

    def _size_of_call(self, call: Call) -> int:
        """Beside what is counted already."""
        size = self._size_of_prompt(call.prompt) + self._once(call.reading.schemas, _size_of_value)
        return size if call.sampling.format is None else size + self._once(call.sampling.format, _size_of_format)

    def _size_of_prompt(self, prompt: Prompt) -> int:
        match prompt:
            case TokensPrompt(ids):
                return self._once(ids, lambda ids: len(ids) * _ID)
            case TextPrompt(segments):
                return sum(map(self._size_of_segment, segments))
            case ChatPrompt(messages, tools, template):
                size = getsizeof(messages) + sum(self._once(one, self._size_of_message) for one in messages)
                return size + sum(self._once(one, _size_of_value) for one in (*tools, template))

    def _size_of_message(self, message: Message) -> int:
        texts = sum(map(self._size_of_segment, message.content or ()))
        return _MESSAGE + texts + self._once(message.fields, _size_of_value)

    def _size_of_segment(self, segment: Segment) -> int:
        if not isinstance(segment, Constant):
            return 0
        is_long = len(segment.text) >= LONG
        return self._once(segment.text, size_of_text) if is_long else size_of_text(segment.text)

    def _once(self, shared: Some, size: Callable[[Some], int]) -> int:
        if id(shared) in self._counted:
            return 0
        self._counted.add(id(shared))
        return size(shared)


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


def size_of_copies(given: Prompt, kept: Prompt) -> int:
    """Of the texts of a prompt for which the session has kept others that say the same: who holds the request that it
    is from has them still."""
    pairs = zip(segments_of(given), segments_of(kept), strict=True)
    texts = (
        (one.text, other.text) for one, other in pairs if isinstance(one, Constant) and isinstance(other, Constant)
    )
    return sum(size_of_text(text) for text, other in texts if text is not other)


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


def _size_of_format(format: OutputFormat) -> int:
    match format:
        case AnyJson():
            return 0
        case JsonSchema(schema=text) | Regex(pattern=text) | Grammar(text=text):
            return size_of_text(text)
        case Choice(texts=texts):
            return _size_of_value(texts)
        case ToolCalls(tools=tools, answer=answer):
            return _size_of_value(tools) + (0 if answer is None else _size_of_format(answer))


def _size_of_logprobs(logprobs: Iterable[Logprobs | TokenLogprobs]) -> int:
    return sum(_LOGPROBS + _ALTERNATIVE * len(one.top) for one in logprobs)
