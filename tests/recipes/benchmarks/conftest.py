"""Cells made by hand, and a scripted server that the apps of the workloads can talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("tokenizers")

from recipes.benchmarks.clients import Endpoint

from ...server.live import live


def scripted(prompt: str) -> str:
    """Another prompt has another answer, so that what an app passes on can be told apart."""
    return f"{sum(prompt.encode()) % 9973} words of "


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with live(scripted, context_tokens=1_000_000) as server:
        yield Endpoint(base_url=f"{server.url}/v1", model="org/scripted", chat_class="parrot")
