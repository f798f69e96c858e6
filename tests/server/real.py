"""The composed product for tests: a real engine behind the real application on a real socket, and the stock SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai

from parrot_compat.compose import Served, running
from parrot_compat.server.listening import Listener
from parrot_compat.settings import Settings


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[tuple[str, Served]]:
    """Its URL, and what is served there."""
    async with running(settings) as served:
        ready = asyncio.Event()
        with Listener("127.0.0.1", 0) as listener:
            serving = asyncio.create_task(listener.serve(served.app, drain_s=0, on_ready=ready.set))
            try:
                await ready.wait()
                yield listener.url, served
            finally:
                listener.stop()
                await serving


def client_of(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=90)
