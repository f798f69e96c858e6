"""Lanes differ in when and where their calls run, and in no token of any answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("torch")

from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.core.policy import MECHANISMS, Policy
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.engine import TorchEngine
from parrot_compat.gpu.models.weights import locate
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from parrot_compat.integrations.langchain import stats
from parrot_compat.server.app import create_app
from parrot_compat.server.listening import Listener
from recipes.benchmarks.cells import Place, run_cell
from recipes.benchmarks.checkpoints import folder
from recipes.benchmarks.clients import Endpoint
from recipes.benchmarks.text import FreshText, open_tokenizer
from recipes.benchmarks.workloads import WORKLOADS, Shape

SHAPE = Shape(tokens=0.02, calls=0.05)
APPS = ("w03", "w10")
POLICIES = ("paper", "plain", *(f"no-{name}" for name in MECHANISMS))


class Lent:
    """An engine that several managers use one after the other: closing it is its owner's."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def close(self) -> None:
        pass


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[TorchEngine]:
    engine = TorchEngine(
        EngineConfig(model="builtin:tiny", device="cpu", max_model_len=2048, kv_tokens=8192, threads=1, **options)
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[TorchEngine]:
    async with started() as engine:
        yield engine


@pytest.fixture(scope="module")
async def told(engine: TorchEngine) -> list[tuple[str, ...]]:
    """What the lane with everything on is told."""
    async with served(engine, "all") as endpoint:
        return await said(endpoint)


@asynccontextmanager
async def served(engine: TorchEngine, policy: str) -> AsyncIterator[Endpoint]:
    fleet = Fleet()
    fleet.add(Lent(engine), HuggingFaceTokenizer(locate("builtin:tiny")))  # type: ignore[arg-type]
    ready = asyncio.Event()
    async with Manager(fleet, policy=Policy.read(policy)) as manager:
        with Listener("127.0.0.1", 0) as listener:
            serving = asyncio.create_task(listener.serve(create_app(manager), drain_s=0, on_ready=ready.set))
            try:
                await ready.wait()
                yield Endpoint(base_url=f"{listener.url}/v1", model=manager.models()[0].name, chat_class="parrot")
                manager.check()
            finally:
                listener.stop()
                await serving


async def said(endpoint: Endpoint) -> list[tuple[str, ...]]:
    """Every call of the apps: what it asked, and what it was told."""
    told = []
    for name in APPS:
        workload = WORKLOADS[name]
        text = FreshText(open_tokenizer(folder("builtin:tiny")), f"a round of {name}")
        place = Place(workload=name, variant="", load=None, rtt_ms=0, round=0, lane="")
        cell = await run_cell(place, next(iter(workload.variants.values()))(SHAPE, text), endpoint, ())
        assert cell.errors == []
        told += [
            (name, app.key, call.name, call.prompt, call.text, str(call.output_tokens))
            for app in cell.foreground
            for call in app.calls
        ]
    return sorted(told)


@pytest.mark.parametrize("policy", POLICIES)
async def test_every_lane_draws_the_same_tokens(engine: TorchEngine, told: list[tuple[str, ...]], policy: str) -> None:
    before, left = stats(), Policy.read(policy)
    async with served(engine, policy) as endpoint:
        assert await said(endpoint) == told
    now = stats()
    pushed, claimed = now.pushed - before.pushed, now.claimed - before.claimed
    if not left.plans:
        assert (pushed, claimed) == (0, 0)
    elif not left.pushes:
        assert pushed == 0 and claimed > len(APPS)
    else:
        assert pushed > len(APPS)


@pytest.mark.parametrize("left_out", ["enable_prefix_caching", "share_prefixes"])
async def test_without_what_prefixes_save_the_same_tokens_are_drawn(told: list[tuple[str, ...]], left_out: str) -> None:
    assert len(told) > 10
    async with started(**{left_out: False}) as engine, served(engine, "all") as endpoint:
        assert await said(endpoint) == told
