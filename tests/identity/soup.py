"""The soup: apps with conversations, forks, cuts and leavers side by side on one engine, all decided by a seed.

Every seed is another engine (page size, pool, chunk, rows, cache on or off) and another order of events. The suite runs
one seed per checkpoint; `python -m tests.identity.report --seeds N` runs as many as there is time for.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

from parrot_compat.core.engine import ContextId
from parrot_compat.gpu.config import EngineConfig

from .bench import PAGE_SIZE, Bench
from .oracle import Answer
from .port import Client, started

__all__ = ["anything_goes", "everything_at_once"]

LONGEST = 150


async def everything_at_once(bench: Bench) -> list[Answer]:
    """Ten apps on one small engine."""
    return await _soup(bench, bench.config(kv_tokens=PAGE_SIZE * 40, step_tokens=48), apps=10)


async def anything_goes(bench: Bench) -> list[Answer]:
    """Some apps on some engine."""
    choose = bench.random.choice
    step_tokens = choose((4, 7, 16, 48, 512))
    config = bench.config(
        page_size=choose((1, 3, 8, PAGE_SIZE, 32)),
        kv_tokens=choose((260, 300, 420, 700, 4000)),
        step_tokens=step_tokens,
        max_rows=min(step_tokens, choose((1, 2, 4, 8, 16))),
        enable_prefix_caching=bench.random.random() < 0.8,
    )
    return await _soup(bench, config, apps=bench.random.randint(1, 10))


async def _soup(bench: Bench, config: EngineConfig, apps: int) -> list[Answer]:
    trunk = bench.tokens(60)
    async with started(config, "soup") as client:
        runs = [_App(client, replace(bench, random=Random(bench.random.random())), trunk).run() for _ in range(apps)]
        await asyncio.gather(*runs)
    return client.answers


class _App:
    """One app: a few contexts, and a few things that happen to them."""

    def __init__(self, client: Client, bench: Bench, trunk: tuple[int, ...]) -> None:
        self.client = client
        self.bench = bench
        self.random = bench.random
        self.trunk = trunk

    async def run(self) -> None:
        contexts = [await self._begin()]
        events = (self._turn, self._forks, self._cut, self._give_up, self._leave, self._fill, self._fork_while_drawing)
        for _ in range(self.random.randint(3, 7)):
            context = self.random.choice(contexts)
            if len(self.client.held(context)) > LONGEST:
                await self.client.truncate(context, self.random.randint(1, 100))
            await self.random.choice(events)(context)
            if self.random.random() < 0.3:
                contexts.append(await self._begin(context))
            if self.random.random() < 0.2 and len(contexts) > 1:
                await self.client.free(contexts.pop(0))
        await self.client.free(*contexts)

    async def _begin(self, parent: ContextId | None = None) -> ContextId:
        """A context: a fork, or a beginning of the text that all apps share."""
        if parent is not None and self.random.random() < 0.5:
            return await self.client.fill(self._some(5), parent=parent)
        return await self.client.fill(self.trunk[: self.random.randint(1, len(self.trunk))])

    async def _turn(self, context: ContextId) -> None:
        await self.client.ask(self._some(25, least=1), self.random.randint(1, 20), context=context)

    async def _forks(self, context: ContextId) -> None:
        tails = [self._some(12) for _ in range(self.random.randint(1, 3))]
        asks = (self.client.ask(tail, self.random.randint(1, 20), parent=context) for tail in tails)
        await asyncio.gather(*asks)

    async def _cut(self, context: ContextId) -> None:
        await self.client.truncate(context, self.random.randint(1, len(self.client.held(context))))
        await self.client.ask(self._some(20), self.random.randint(1, 20), context=context)

    async def _give_up(self, context: ContextId) -> None:
        await self.client.leave_early(self._some(60, least=1), self.random.randint(0, 4), context)

    async def _leave(self, context: ContextId) -> None:
        await self.client.leave_early(self._some(60, least=1), self.random.randint(0, 4))

    async def _fill(self, context: ContextId) -> None:
        await self.client.fill(self._some(30), context=context)

    async def _fork_while_drawing(self, context: ContextId) -> None:
        answer = asyncio.ensure_future(
            self.client.ask(self._some(9, least=1), self.random.randint(1, 30), context=context)
        )
        await asyncio.sleep(0)  # its command goes first
        for _ in range(self.random.randint(1, 3)):
            await self.client.ask(self._some(9), self.random.randint(1, 8), parent=context)
        await answer

    def _some(self, most: int, least: int = 0) -> tuple[int, ...]:
        return self.bench.tokens(self.random.randint(least, most))
