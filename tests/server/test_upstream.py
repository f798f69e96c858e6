"""A server behind this one: what it tells beside the text reaches the client in the words of both endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from parrot_compat.core.engines.openai_server import OpenAIServerEngine
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.server.app import create_app
from parrot_compat.server.listening import Listener
from tests.core.scripted_server import ScriptedServer, serving

CHAT: Any = [{"role": "user", "content": "snow"}]
SNOW = "雪 ☃!"


@pytest.fixture(scope="module")
async def behind() -> AsyncIterator[ScriptedServer]:
    async with serving(ScriptedServer(lambda prompt: SNOW)) as server:
        yield server


@pytest.fixture(scope="module")
async def client(behind: ScriptedServer) -> AsyncIterator[openai.AsyncOpenAI]:
    fleet = Fleet()
    fleet.add(await OpenAIServerEngine.connect(behind.base_url))
    async with Manager(fleet) as manager:
        with Listener("127.0.0.1", 0) as listener:
            ready = asyncio.Event()
            running = asyncio.create_task(listener.serve(create_app(manager), drain_s=0, on_ready=ready.set))
            await ready.wait()
            async with openai.AsyncOpenAI(
                base_url=f"{listener.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
            ) as client:
                yield client
            listener.stop()
            await running


async def test_log_probabilities_of_a_chat_are_the_other_servers(client: openai.AsyncOpenAI) -> None:
    asked: Any = dict(model="big", messages=CHAT, logprobs=True, top_logprobs=2)
    whole = (await client.chat.completions.create(**asked)).choices[0]
    assert whole.logprobs is not None and whole.logprobs.content is not None
    assert [(one.token, one.logprob, one.bytes) for one in whole.logprobs.content] == [
        (character, -0.5, list(character.encode())) for character in SNOW
    ]
    assert [[(one.token, one.logprob) for one in entry.top_logprobs] for entry in whole.logprobs.content] == [
        [(character, -0.5), ("?", -1.5)] for character in SNOW
    ]
    streamed = [
        entry
        async for chunk in await client.chat.completions.create(**asked, stream=True)
        for choice in chunk.choices
        if choice.logprobs is not None
        for entry in choice.logprobs.content or ()
    ]
    assert streamed == whole.logprobs.content


async def test_log_probabilities_of_a_text_have_offsets_too(client: openai.AsyncOpenAI) -> None:
    told = (await client.completions.create(model="big", prompt="snow", logprobs=2)).choices[0].logprobs
    assert told is not None and told.tokens == list(SNOW) and told.text_offset == list(range(len(SNOW)))
    assert told.top_logprobs == [{character: -0.5, "?": -1.5} for character in SNOW]


async def test_log_probabilities_of_a_prompt_are_refused_by_name(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.completions.create(model="big", prompt="snow", logprobs=2, echo=True)
    assert refused.value.code == "tokenizer_unknown"


async def test_a_text_of_as_many_tokens_as_fit_asks_for_no_more_than_fit(
    client: openai.AsyncOpenAI, behind: ScriptedServer
) -> None:
    await client.completions.create(model="big", prompt="snow", max_tokens=2**31 - 1)
    assert 400 < behind.asked[-1]["max_tokens"] <= 512 - len("snow")


async def test_what_was_asked_of_calls_and_thinking_is_asked_there(
    client: openai.AsyncOpenAI, behind: ScriptedServer
) -> None:
    tools: Any = [{"type": "function", "function": {"name": "add"}}]
    more: Any = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}, "reasoning_effort": "low"}
    await client.chat.completions.create(model="big", messages=CHAT, tools=tools, parallel_tool_calls=False, **more)
    asked = behind.asked[-1]
    assert asked["parallel_tool_calls"] is False and asked["reasoning_effort"] == "low"
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}


async def test_reasoning_that_another_server_counts_is_told(client: openai.AsyncOpenAI, behind: ScriptedServer) -> None:
    behind.usage = {"completion_tokens_details": {"reasoning_tokens": 3}}
    usage = (await client.chat.completions.create(model="big", messages=CHAT)).usage
    assert usage is not None and usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 3
    behind.usage = {}
    usage = (await client.chat.completions.create(model="big", messages=CHAT)).usage
    assert usage is not None and usage.completion_tokens_details is None


async def test_a_session_tells_the_tokens_that_the_other_server_has_counted(client: openai.AsyncOpenAI) -> None:
    said = {"parrot": {"session": "counted"}}
    usage = (await client.chat.completions.create(model="big", messages=CHAT, extra_body=said)).usage
    seen: Any = await client.get("/parrot/sessions/counted", cast_to=object)
    assert usage is not None and [call["prompt_tokens"] for call in seen["calls"]] == [usage.prompt_tokens]
