"""The asyncio half of an engine whose other half steps elsewhere: in a thread, in a process, on another machine.

Verbs leave as `Command`s, one `StepReport` per step comes back with the answers of all of them. The front knows
neither models nor how the two halves are joined: an engine inherits it and says how a command is sent.

The invariant: whoever waits is answered. A verb ends with its answer, with an error, or with `EngineLost` when the
other half is gone; a caller who leaves early sends a `Cancel`.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any

from .engine import Chunk, ContextId, Embed, Embedded, EngineInfo, EngineLoad, Fill, Filled, Generate
from .errors import EngineLost
from .inboxes import Answer, Inbox, Taken, checked
from .prompt import Content, Tokens

__all__ = [
    "Answer",
    "Cancel",
    "Command",
    "EngineFront",
    "Free",
    "Hurry",
    "Ready",
    "StepReport",
    "Truncate",
    "Update",
    "Verb",
]


@dataclass(frozen=True, slots=True)
class Truncate:
    """Keep the first `tokens` tokens of a context."""

    context: ContextId
    tokens: int


@dataclass(frozen=True, slots=True)
class Free:
    """Forget a context, and end what still works on it."""

    context: ContextId


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the verb of an earlier command. It is not answered any more; its context is as it was before it."""

    command: int


@dataclass(frozen=True, slots=True)
class Hurry:
    """What works on the context, or waits to, has no more than this slack, from when it came. It is not answered."""

    context: ContextId
    slack_s: float


Verb = Fill | Generate | Embed | Truncate | Free | Cancel | Hurry
"""An `Embed` on its way has one input: each is a command of its own."""


@dataclass(frozen=True, slots=True)
class Command:
    id: int
    """Ascending: the order in which the verbs were asked for."""
    verb: Verb
    heard: int | None = None
    """Number of the last report that its sender knew; `None`: the last. What failed later, it still counts on."""


@dataclass(frozen=True, slots=True)
class Update:
    command: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Ready:
    """The other half is there: its model is loaded."""

    info: EngineInfo
    load: EngineLoad


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """Everything that one step has to tell, for all rows at once. On the way to another process it is plain tuples:
    dataclasses are pickled, and read, one by one and in Python."""

    updates: tuple[Update, ...] = ()
    load: EngineLoad = field(default_factory=EngineLoad)
    taken: int = 0
    """Last command that `load` counts."""
    number: int = 0
    """Of the reports, from 1."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (tuple(map(_packed, self.updates)), _numbers(self.load), self.taken, self.number)


_LOAD = tuple(field.name for field in fields(EngineLoad))
_numbers = attrgetter(*_LOAD)
_beside_text = attrgetter(*(field.name for field in fields(Chunk) if field.name not in ("text", "tokens")))
_NOTHING = _beside_text(Chunk())


def _packed(update: Update) -> Update | tuple[int, str, tuple[int, ...]]:
    """Nearly all updates are chunks of text and tokens with nothing else."""
    chunk = update.answer
    if isinstance(chunk, Chunk) and _beside_text(chunk) == _NOTHING:
        return update.command, chunk.text, chunk.tokens
    return update


def _unpacked(
    updates: tuple[Update | tuple[int, str, tuple[int, ...]], ...], numbers: tuple[Any, ...], taken: int, number: int
) -> StepReport:
    return StepReport(
        updates=tuple(
            Update(each[0], Chunk(text=each[1], tokens=each[2])) if isinstance(each, tuple) else each
            for each in updates
        ),
        load=EngineLoad(**dict(zip(_LOAD, numbers, strict=True))),
        taken=taken,
        number=number,
    )


class EngineFront(ABC):
    """Verbs out, answers in. Belongs to one event loop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._info: EngineInfo | None = None
        self._lost: str | None = f"engine {name!r} has not been started"
        self._is_gone = asyncio.Event()
        self._ids = itertools.count(1)
        self._answers: dict[int, Inbox | Taken] = {}
        self._load = EngineLoad()
        self._heard = 0
        self._on_the_way: dict[int, int] = {}
        """Prompt tokens of the commands that the other half has not counted yet."""

    # ---- what an engine adds -----------------------------------------------------------------------

    @abstractmethod
    def _send(self, command: Command) -> None:
        """Hand a command to the other half, in order, without blocking."""

    # ---- the port ----------------------------------------------------------------------------------

    @property
    def info(self) -> EngineInfo:
        if self._info is None:
            raise EngineLost(self._lost or f"engine {self.name!r} has not been started")
        return self._info

    async def fill(self, fill: Fill) -> Filled:
        answer = await self._ask(fill)
        assert isinstance(answer, Filled), answer
        return answer

    async def generate(self, generate: Generate) -> AsyncIterator[Chunk]:
        with self._open(generate, answers := Inbox()):
            while True:
                chunk = checked(await answers.get())
                assert isinstance(chunk, Chunk), chunk
                yield chunk
                if chunk.finish is not None:
                    return

    async def pour(self, generate: Generate, take: Callable[[Chunk], bool]) -> None:
        answers = Taken(take)
        with self._open(generate, answers):
            await answers.over

    async def embed(self, embed: Embed) -> Embedded:
        with ExitStack() as opened:  # the first that fails takes the others along
            inputs = [Inbox() for _ in embed.inputs]
            for one, inbox in zip(embed.inputs, inputs, strict=True):
                opened.enter_context(self._open(replace(embed, inputs=(one,)), inbox))
            answers = [checked(await inbox.get()) for inbox in inputs]
        done = [answer for answer in answers if isinstance(answer, Embedded)]
        assert len(done) == len(answers), answers
        vectors = tuple(vector for one in done for vector in one.vectors)
        return Embedded(vectors=vectors, prompt_tokens=sum(one.prompt_tokens for one in done))

    async def truncate(self, context: ContextId, tokens: int) -> None:
        await self._ask(Truncate(context, tokens))

    async def free(self, context: ContextId) -> None:
        await self._ask(Free(context))

    def hurry(self, context: ContextId, slack_s: float) -> None:
        if self._lost is None:
            self._send(Command(next(self._ids), Hurry(context, slack_s), self._heard))

    def load(self) -> EngineLoad:
        """What the last step reported, and what was sent since."""
        return replace(
            self._load,
            waiting=self._load.waiting + len(self._on_the_way),
            waiting_tokens=self._load.waiting_tokens + sum(self._on_the_way.values()),
        )

    async def lost(self) -> EngineLost:
        """Returns when the other half is gone."""
        await self._is_gone.wait()
        return EngineLost(self._lost or "")

    # ---- answers coming in -------------------------------------------------------------------------

    def _join(self, ready: Ready) -> None:
        """Verbs may be sent from now on."""
        self._info, self._load, self._lost, self._heard = ready.info, ready.load, None, 0

    def _deliver(self, report: StepReport) -> None:
        self._load, self._heard = report.load, report.number
        for command in [command for command in self._on_the_way if command <= report.taken]:
            del self._on_the_way[command]
        for update in report.updates:
            answers = self._answers.get(update.command)
            if answers is not None:  # otherwise its caller has left, and the cancel is on its way
                answers.put(update.answer)

    def _lose(self, reason: str) -> None:
        """The other half is gone: nothing that waits will be answered, and nothing more can be asked."""
        if self._lost is None:
            self._lost, self._load = reason, EngineLoad()
            self._is_gone.set()
            self._on_the_way.clear()
            for answers in self._answers.values():
                answers.put(EngineLost(reason))

    # ---- inside ------------------------------------------------------------------------------------

    async def _ask(self, verb: Verb) -> Answer:
        with self._open(verb, answers := Inbox()):
            return checked(await answers.get())

    @contextmanager
    def _open(self, verb: Verb, answers: Inbox | Taken) -> Iterator[None]:
        """Send a verb; its answers go where it says. Leaving before the last answer cancels it."""
        if self._lost is not None:
            raise EngineLost(self._lost)
        command = Command(next(self._ids), verb, self._heard)
        self._answers[command.id] = answers
        if isinstance(verb, Fill | Generate | Embed):
            contents = verb.inputs if isinstance(verb, Embed) else (verb.content,)
            self._on_the_way[command.id] = sum(map(_tokens, contents))
        try:
            self._send(command)
            yield
        finally:
            del self._answers[command.id]
            if not answers.ended and self._lost is None:
                self._send(Command(next(self._ids), Cancel(command.id), self._heard))


def _tokens(content: Content) -> int:
    return len(content.ids) if isinstance(content, Tokens) else 0
