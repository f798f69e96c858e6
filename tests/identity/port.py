"""An engine seen only through its port, and a record of every answer it gave.

`Client` follows what each context holds, so that every answer carries the whole token prefix it was drawn after: that
is what the oracle is asked about. Of how the engine works it knows only where a preemption can be seen.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from collections.abc import Sequence as Items
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engine import ContextId, Fill, Filled, Generate, Scope
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.engine import TorchEngine, load_stepper
from parrot_compat.gpu.sequence import Sequence
from parrot_compat.gpu.stepper import Stepper

from .oracle import Answer

__all__ = ["Client", "greedy", "started"]

Ids = Items[int]


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
        self._held: dict[ContextId, tuple[int, ...]] = {}
        self._ids = itertools.count(1)

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
        keep: bool = False,
    ) -> Answer:
        """Draw `tokens` tokens and record them. The context is freed afterwards unless it was given, or `keep`."""
        mine = self.new_context() if context is None else context
        prompt = self._before(mine, parent) + tuple(content)
        sampling = greedy(tokens) if sampling is None else replace(sampling, max_tokens=tokens)
        request = Generate(
            context=mine,
            content=Tokens(tuple(content)),
            sampling=sampling,
            parent=parent,
            scope=Scope(namespace=namespace),
        )
        chunks = [chunk async for chunk in self.engine.generate(request)]
        assert [chunk.finish is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        usage = chunks[-1].usage
        assert usage is not None
        answer = Answer(
            prompt=prompt,
            output=tuple(token for chunk in chunks for token in chunk.tokens),
            text="".join(chunk.text for chunk in chunks),
            cached_tokens=usage.cached_tokens,
            label=self.label,
        )
        assert usage.output_tokens == len(answer.output)
        self.answers.append(answer)
        if context is None and not keep:
            await self.engine.free(mine)
        else:
            self._held[mine] = prompt + answer.output
        return answer

    async def leave_early(self, content: Ids, after: int) -> None:
        """Start a long answer and close it after `after` chunks, as a client that goes away does."""
        context = self.new_context()
        request = Generate(context=context, content=Tokens(tuple(content)), sampling=greedy(200))
        async with aclosing(self.engine.generate(request)) as chunks:
            for _ in range(after):
                await anext(chunks)
        await self.engine.free(context)

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
        preempt = stepper._preempt

        def counted(sequence: Sequence) -> None:
            client.preemptions += 1
            preempt(sequence)

        stepper._preempt = counted  # type: ignore[method-assign]
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
