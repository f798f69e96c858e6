"""The scripted engine: answers come from a script, time from a clock, trouble on request.

It is a whole engine (contexts, forks, a prefix cache, rows, streaming) without a model: for your tests, for recipes
and for capacity studies, which run the real manager over it in simulated time. It has no thread and no socket.

    engine = ScriptedEngine({"capital of France": "Paris"})           # the longest key found in the prompt answers
    engine = ScriptedEngine(lambda prompt: prompt[::-1], speed=Speed(prefill_tokens_s=5000, step_s=0.02), clock=clock)
    engine.fail_next(EngineError("out of paper"), after_tokens=3)     # and die(), stall(), resume()

The invariant: a prompt's answer depends on the prompt alone; rows, speed and what is cached change only when it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ..block_cache import BlockCache
from ..call import ResolvedSampling, Usage
from ..clock import Clock, RealClock
from ..engine import Chunk, ContextId, Embed, Embedded, EngineInfo, EngineLoad, Fill, Filled, Generate
from ..errors import ContextLost, EngineLost, PromptTooLong
from ..prefix import token_blocks
from .char_tokenizer import CharTokenizer
from .script import Script, answer, certain
from .word_vectors import text_vector

__all__ = ["INSTANT", "Script", "ScriptedEngine", "Speed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How long work takes. Prompts are computed one after the other, answers are drawn side by side."""

    prefill_tokens_s: float = float("inf")
    step_s: float = 0.0
    """One token of one row."""
    row_share: float = 0.05
    """Of a step's time that each further row adds."""
    chunk_tokens: int = 8
    """Tokens of answer that are handed out at once."""


INSTANT = Speed()

_DEFAULT_INFO = EngineInfo(name="scripted", model="scripted", context_tokens=65_536)


@dataclass(slots=True)
class _Row:
    """One verb at work. `held` of the `ids` were in the context before, `cached` of them need no computing."""

    ids: list[int]
    held: int
    cached: int = 0


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception
    after_tokens: int


class ScriptedEngine:
    """Takes tokens of `CharTokenizer`, or text (`info.takes`), which it tokenises the same way by itself."""

    def __init__(
        self, script: Script, info: EngineInfo = _DEFAULT_INFO, *, speed: Speed = INSTANT, clock: Clock | None = None
    ) -> None:
        self.tokenizer = CharTokenizer()
        self._script = script
        self._info = info
        self._speed = speed
        self._clock: Clock = clock or RealClock()
        self._contexts: dict[ContextId, list[int]] = {}
        self._cache = BlockCache(info.capacity_tokens)
        self._running = 0
        self._waiting = 0
        self._waiting_tokens = 0
        self._prefill_free_s = 0.0  # when the prompts accepted so far are computed
        self._row_left = asyncio.Event()
        self._moves = asyncio.Event()
        self._moves.set()
        self._sleepers: set[asyncio.Future[object]] = set()
        self._death: str | None = None
        self._is_dead = asyncio.Event()
        self._failures: list[_Failure] = []
        self.generated = 0
        """Generates begun so far, for tests that count."""

    # ---- the port --------------------------------------------------------------------------------------

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def fill(self, fill: Fill) -> Filled:
        async with self._row(fill) as row:
            self._contexts[fill.context] = row.ids
        return Filled(tokens=len(row.ids), cached_tokens=max(0, row.cached - row.held))

    async def generate(self, generate: Generate) -> AsyncGenerator[Chunk, None]:
        self.generated += 1
        failure = self._failures.pop(0) if self._failures else None
        async with self._row(generate) as row:
            room = self._info.context_tokens - len(row.ids)
            scripted = answer(self._script, self.tokenizer.decode(row.ids), generate.sampling, room)
            sampling = generate.sampling
            prompted: dict[str, Any] = {"prompt_logprobs": certain(row.ids[1:], sampling.prompt_logprobs)}
            if self._info.takes == "tokens":
                prompted["prompt"] = _usage(row, 0)
            said = scripted.ids if failure is None else scripted.ids[: failure.after_tokens]
            pieces = [said[at : at + self._speed.chunk_tokens] for at in range(0, len(said), self._speed.chunk_tokens)]
            for index, piece in enumerate(pieces or [()]):
                await self._decode(len(piece))
                if failure is None and index >= len(pieces) - 1:
                    self._contexts[generate.context] = [*row.ids, *scripted.ids]
                    usage = _usage(row, scripted.drawn)
                    ends = {"finish": scripted.finish, "usage": usage, "stop": scripted.stop}
                    yield self._chunk(piece, sampling, **ends, **prompted)
                elif piece:
                    yield self._chunk(piece, sampling, **prompted)
                prompted = {}
            if failure is not None:
                raise failure.error

    async def embed(self, embed: Embed) -> Embedded:
        """Vectors of the words: texts with the same words are near each other, and pooling makes no difference."""
        self._must_live()
        inputs = [self._fitting(self.tokenizer.encode(content), room=0) for content in embed.inputs]
        vectors = tuple(text_vector(self.tokenizer.decode(ids), embed.dimensions) for ids in inputs)
        tokens = sum(map(len, inputs))
        self._waiting_tokens += tokens
        try:
            await self._prefill(tokens)
        finally:
            self._waiting_tokens -= tokens
        return Embedded(vectors=vectors, prompt_tokens=tokens)

    async def truncate(self, context: ContextId, tokens: int) -> None:
        self._must_live()
        del self._context(context)[tokens:]

    async def free(self, context: ContextId) -> None:
        self._must_live()
        self._contexts.pop(context, None)

    def load(self) -> EngineLoad:
        capacity = self._info.capacity_tokens
        return EngineLoad(
            running=self._running,
            waiting=self._waiting,
            waiting_tokens=self._waiting_tokens,
            free_tokens=None if capacity is None else max(0, capacity - sum(map(len, self._contexts.values()))),
            step_s=self._step_s() or None,
        )

    async def close(self) -> None:
        self.die("it was closed")

    async def lost(self) -> EngineLost:
        await self._is_dead.wait()
        return self._loss()

    # ---- trouble on request ----------------------------------------------------------------------------

    def fail_next(self, error: Exception, *, after_tokens: int = 0) -> None:
        """The next generate that nobody has claimed yet says `after_tokens` tokens of its answer and raises `error`."""
        self._failures.append(_Failure(error, after_tokens))

    def die(self, reason: str = "it was killed") -> None:
        """Everything inside, and everything that comes, fails with `EngineLost`. Contexts are gone."""
        self._death = self._death or reason
        self._contexts.clear()
        self._is_dead.set()
        for sleeper in self._sleepers:
            sleeper.cancel()

    def stall(self) -> None:
        """Nothing moves until `resume`; what is inside stays there."""
        self._moves.clear()

    def resume(self) -> None:
        self._moves.set()

    def check(self) -> None:
        assert 0 <= self._running <= (self._info.max_rows or self._running)
        assert self._waiting >= 0 and self._waiting_tokens >= 0
        if not self._running and not self._waiting:
            assert not self._waiting_tokens and not self._sleepers

    # ---- inside: rows ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _row(self, verb: Fill | Generate) -> AsyncIterator[_Row]:
        """Wait for a row, compute what is new of the prompt, and keep the row until the verb is done."""
        self._must_live()
        row = self._extended(verb)
        blocks = token_blocks(verb.scope.namespace, row.ids)
        row.cached = max(row.held, self._cache.cached_tokens(blocks, len(row.ids)))
        new_tokens = len(row.ids) - row.cached
        self._waiting_tokens += new_tokens
        try:
            await self._take_row()
        except BaseException:
            self._waiting_tokens -= new_tokens
            raise
        try:
            try:
                await self._prefill(new_tokens)
            finally:
                self._waiting_tokens -= new_tokens
            self._cache.remember(blocks)
            yield row
        finally:
            self._running -= 1
            self._row_left.set()

    def _extended(self, verb: Fill | Generate) -> _Row:
        if verb.context in self._contexts:
            before = self._contexts[verb.context]
        else:
            before = [] if verb.parent is None else self._context(verb.parent)
        ids = [*before, *self.tokenizer.encode(verb.content)]
        return _Row(ids=self._fitting(ids), held=len(before))

    def _fitting(self, ids: Sequence[int], room: int = 1) -> list[int]:
        """Errors: `PromptTooLong` where no `room` is left."""
        limit = self._info.context_tokens
        if len(ids) + room > limit:
            raise PromptTooLong(f"prompt is too long: {len(ids)} tokens; {self._info.name!r} has a context of {limit}")
        return list(ids)

    async def _take_row(self) -> None:
        self._waiting += 1
        try:
            while self._info.max_rows is not None and self._running >= self._info.max_rows:
                self._row_left.clear()
                await self._or_death(self._row_left.wait())
        finally:
            self._waiting -= 1
        self._running += 1

    async def _prefill(self, tokens: int) -> None:
        now_s = self._clock.now()
        self._prefill_free_s = max(now_s, self._prefill_free_s) + tokens / self._speed.prefill_tokens_s
        await self._pass(self._prefill_free_s - now_s)

    async def _decode(self, tokens: int) -> None:
        await self._pass(tokens * self._step_s())

    def _step_s(self) -> float:
        return self._speed.step_s * (1 + self._speed.row_share * max(0, self._running - 1))

    async def _pass(self, seconds: float) -> None:
        """Let `seconds` go by, and the stall if there is one."""
        if seconds > 0:
            await self._or_death(self._clock.sleep(seconds))
        else:
            await asyncio.sleep(0)  # an engine is never done at once: whoever waits gets a turn
        if not self._moves.is_set():
            await self._or_death(self._moves.wait())
        self._must_live()

    async def _or_death(self, event: Coroutine[Any, Any, object]) -> None:
        sleeper = asyncio.ensure_future(event)
        self._sleepers.add(sleeper)
        try:
            await asyncio.wait((sleeper,))  # death cancels the sleeper, not us
        finally:
            self._sleepers.discard(sleeper)
            sleeper.cancel()
        self._must_live()

    def _must_live(self) -> None:
        if self._death is not None:
            raise self._loss()

    def _loss(self) -> EngineLost:
        return EngineLost(f"engine {self._info.name!r} is gone: {self._death}")

    # ---- inside: contexts, cache, chunks ---------------------------------------------------------------

    def _chunk(self, ids: tuple[int, ...], sampling: ResolvedSampling, **more: Any) -> Chunk:
        tokens = ids if self._info.takes == "tokens" else ()
        return Chunk(
            text=self.tokenizer.decode(ids), tokens=tokens, logprobs=certain(tokens, sampling.logprobs), **more
        )

    def _context(self, context: ContextId) -> list[int]:
        if context not in self._contexts:
            raise ContextLost(f"engine {self._info.name!r} holds no context {context}")
        return self._contexts[context]


def _usage(row: _Row, drawn: int) -> Usage:
    return Usage(prompt_tokens=len(row.ids), output_tokens=drawn, cached_tokens=row.cached)
