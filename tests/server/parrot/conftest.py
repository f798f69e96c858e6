"""A live server for each module: sessions outlive the requests that opened them, and tests count what is left."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest

from tests.server.live import Live, live


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Live]:
    async with live() as running:
        yield running


@pytest.fixture(scope="module")
async def client(server: Live) -> AsyncIterator[openai.AsyncOpenAI]:
    """Validates every field of every answer; never tries twice."""
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client
