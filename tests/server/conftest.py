"""One live server for the whole session, and OpenAI's own client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest

from .live import Live, live


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[Live]:
    async with live() as running:
        yield running


@pytest.fixture(scope="session")
async def client(server: Live) -> AsyncIterator[openai.AsyncOpenAI]:
    """Validates every field of every answer; never tries twice, so that tests see the first answer."""
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client
