"""An engine seen only through its port, and a record of every answer it gave.

`Client` follows what each context holds, so that every answer carries the whole token prefix it was drawn after: that
is what the oracle is asked about. Of how the engine works it knows only where preemptions and steps can be counted.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable
from collections.abc import Sequence as Items
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engine import ContextId, Fill, Filled, Generate, Scope
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.drawing.drawn import Drawn
from parrot_compat.gpu.engine import TorchEngine, load_stepper
from parrot_compat.gpu.sequence import Sequence
from parrot_compat.gpu.stepper import Stepper
from tests.gpu.at_once import at_once

from .oracle import Answer

__all__ = ["Client", "greedy", "started"]

Ids = Items[int]

AHEAD = 20
"""Tokens that an engine may draw for one who is about to leave: whatever holds him up, he leaves before the end."""


def greedy(tokens: int) -> ResolvedSampling:
    return ResolvedSampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)


class Client:
    """One app talking to one engine."""

    def __init__(self, engine: TorchEngine, label: str = "") -> None:
        self.engine = engine
        self.label = label
        self.answers: list[Answer] = []
        self.preemptions = 0
        """Times that a sequence lost its pages and was computed again."""
        self.steps = 0
        self.steps_ahead = 0
        """Of them, those that were launched before the tokens of the step before were known."""
        self._held: dict[ContextId, tuple[int, ...]] = {}
        self._drawing: dict[ContextId, asyncio.Event] = {}
        """Contexts whose answer is not complete; set when it is."""
        self._ids = itertools.count(1)
        self._leaving: dict[ContextId, tuple[int, threading.Event]] = {}
        """By context: after how many tokens its answer will be given up; set when it is."""

    def held(self, context: ContextId) -> tuple[int, ...]:
        return self._held[context]

    def new_context(self) -> ContextId:
        return ContextId(next(self._ids))

    async def fill(
        self, content: Ids, *, context: ContextId | None = None, parent: ContextId | None = None
    ) -> ContextId:
        """Make a context (or extend `context`) hold `content` after what it or `parent` holds."""
        context = self.new_context() if context is None else context
        whole = self._before(context, parent) + tuple(content)
        filled = await self.engine.fill(Fill(context=context, content=Tokens(tuple(content)), parent=parent))
        assert isinstance(filled, Filled) and filled.tokens == len(whole)
        self._held[context] = whole
        return context

    async def ask(
        self,
        content: Ids,
        tokens: int,
        *,
        context: ContextId | None = None,
        parent: ContextId | None = None,
        sampling: ResolvedSampling | None = None,
        namespace: str = "",
    ) -> Answer:
        """Draw `tokens` tokens and record them. A context that was not given is freed afterwards.

        A `parent` may be drawing meanwhile: the answer is then on as much of its text as it had at the fork.
        """
        mine = self.new_context() if context is None else context
        request = Generate(
            context=mine,
            content=Tokens(tuple(content)),
            sampling=greedy(tokens) if sampling is None else replace(sampling, max_tokens=tokens),
            parent=parent,
            scope=Scope(namespace=namespace),
        )
        parent_draws = None if parent is None else self._drawing.get(parent)
        self._drawing[mine] = asyncio.Event()
        chunks = [chunk async for chunk in self.engine.generate(request)]
        assert [chunk.finish is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        output = tuple(token for chunk in chunks for token in chunk.tokens)
        usage = chunks[-1].usage
        assert usage is not None and usage.output_tokens == len(output)
        before = self._before(mine, parent)
        if parent is not None and parent_draws is not None:
            await parent_draws.wait()
            before = self._held[parent][: usage.prompt_tokens - len(content)]
        prompt = before + tuple(content)
        assert usage.prompt_tokens == len(prompt)
        answer = Answer(
            prompt=prompt,
            output=output,
            text="".join(chunk.text for chunk in chunks),
            cached_tokens=usage.cached_tokens,
            label=self.label,
        )
        self.answers.append(answer)
        self._held[mine] = prompt + output
        self._drawing.pop(mine).set()
        if context is None:
            await self.free(mine)
        return answer

    async def leave_early(self, content: Ids, after: int, context: ContextId | None = None) -> None:
        """Start a long answer and go away: after `after` chunks, or while the prompt is still being computed (0)."""
        mine = self.new_context() if context is None else context
        request = Generate(context=mine, content=Tokens(tuple(content)), sampling=greedy(200))
        self._leaving[mine] = after, (has_left := threading.Event())
        try:
            async with aclosing(self.engine.generate(request)) as chunks:
                for _ in range(after):
                    await anext(chunks)
                if after == 0:
                    first = asyncio.ensure_future(anext(chunks))
                    for _ in range(5):
                        await asyncio.sleep(0)
                    first.cancel()
                    await asyncio.wait([first])
        finally:
            has_left.set()
            del self._leaving[mine]
        if context is None:
            await self.engine.free(mine)

    async def together(self, *asked: Awaitable[object]) -> None:
        """All of it is asked before the engine takes up any."""
        await at_once(self.engine, *asked)

    def wait_for_leavers(self, sequence: Sequence) -> None:
        """In the engine's thread: an answer that will be given up is not drawn to its end before it is."""
        after, has_left = self._leaving.get(ContextId(sequence.context.id), (0, None))
        if has_left is not None and len(sequence.drawn) >= after + AHEAD:
            assert has_left.wait(60)

    async def truncate(self, context: ContextId, tokens: int) -> None:
        await self.engine.truncate(context, tokens)
        self._held[context] = self._held[context][:tokens]

    async def free(self, *contexts: ContextId) -> None:
        for context in contexts:
            await self.engine.free(context)
            del self._held[context]

    async def free_all(self) -> None:
        await self.free(*list(self._held))

    def _before(self, context: ContextId, parent: ContextId | None) -> tuple[int, ...]:
        return self._held.get(context, self._held[parent] if parent is not None else ())


@asynccontextmanager
async def started(config: EngineConfig, label: str = "") -> AsyncIterator[Client]:
    """A live engine. When the work is done and every context is freed, its KV invariants are checked."""

    def load(config: EngineConfig) -> Stepper:
        stepper = load_stepper(config)
        rows = stepper._rows
        preempt = rows._preempt

        def counted(sequence: Sequence) -> None:
            client.preemptions += 1
            preempt(sequence)

        rows._preempt = counted  # type: ignore[method-assign]
        runner = stepper._runner
        launch = runner.launch

        def launched(batch: Items[BatchRow], after: Any = None) -> Any:
            client.steps += 1
            client.steps_ahead += after is not None
            return launch(batch, after)

        runner.launch = launched  # type: ignore[method-assign]
        extend = stepper._work.extend

        def extended(sequence: Sequence, drawn: Drawn) -> None:
            extend(sequence, drawn)
            client.wait_for_leavers(sequence)

        stepper._work.extend = extended  # type: ignore[method-assign]
        return stepper

    engine = TorchEngine(config, load)
    client = Client(engine, label)
    await engine.start()
    try:
        yield client
        await client.free_all()
        engine.check()
    finally:
        await engine.close()
