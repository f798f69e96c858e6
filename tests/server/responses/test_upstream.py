"""A server behind this one, asked by /v1/responses: what it tells and refuses is told in the words of responses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from starlette.responses import JSONResponse

from tests.core.scripted_server import ScriptedServer, serving
from tests.server.test_upstream import SNOW, before


@pytest.fixture(scope="module")
async def behind() -> AsyncIterator[ScriptedServer]:
    async with serving(ScriptedServer(lambda prompt: SNOW)) as server:
        yield server


@pytest.fixture(scope="module")
async def client(behind: ScriptedServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with before(behind) as client:
        yield client


async def test_log_probabilities_of_a_text_are_the_other_servers(client: openai.AsyncOpenAI) -> None:
    asked: Any = {"model": "big", "input": "snow", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    answer = await client.responses.create(**asked)
    part: Any = answer.output[0]
    entries = part.content[0].logprobs
    assert [(entry.token, entry.logprob, entry.bytes) for entry in entries] == [
        (character, -0.5, list(character.encode())) for character in SNOW
    ]
    assert answer.output_text == SNOW


async def test_what_the_model_says_instead_of_an_answer_is_a_refusal(
    client: openai.AsyncOpenAI, behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "script", lambda prompt: "")
    monkeypatch.setattr(behind, "deltas", [{"refusal": "I can"}, {"refusal": "not."}])
    item: Any = (await client.responses.create(model="big", input="snow")).output[0]
    assert [(part.type, part.refusal) for part in item.content] == [("refusal", "I cannot.")]
    stream = await client.responses.create(model="big", input="snow", stream=True)
    assert [event.delta async for event in stream if event.type == "response.refusal.delta"] == ["I can", "not."]


@pytest.mark.parametrize(
    ("param", "field"),
    [
        ("reasoning_effort", "reasoning.effort"),
        ("messages[0].content", "input[0].content"),
        ("messages[1].tool_calls[1].function.arguments", "input[2].arguments"),
    ],
)
async def test_the_field_is_the_clients_where_the_message_does_not_name_it(
    client: openai.AsyncOpenAI, behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch, param: str, field: str
) -> None:
    refused = {"error": {"message": "Unsupported value.", "param": param}}
    monkeypatch.setattr(behind, "refusal", JSONResponse(refused, 400))
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    said: Any = [{"role": "user", "content": "snow"}, *({**call, "call_id": str(number)} for number in range(2))]
    with pytest.raises(openai.BadRequestError, match="Unsupported value") as told:
        await client.responses.create(model="big", input=said)
    assert told.value.param == field


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_the_other_server_names_the_field_that_the_client_wrote(
    client: openai.AsyncOpenAI, behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    for param, field in (("messages[1].content", "input"), ("max_completion_tokens", "max_output_tokens")):
        refused = {"error": {"message": f"{param} is too much", "param": param}}
        monkeypatch.setattr(behind, "refusal", JSONResponse(refused, 400))
        with pytest.raises(openai.BadRequestError, match=f"{field} is too much") as told:
            await client.responses.create(model="big", input="snow", instructions="Be brief.", stream=stream)  # type: ignore[call-overload]
        assert told.value.param == field


async def test_the_other_server_is_asked_as_a_chat(client: openai.AsyncOpenAI, behind: ScriptedServer) -> None:
    tools: Any = [{"type": "function", "name": "add", "parameters": {"type": "object"}}]
    more: Any = {"reasoning": {"effort": "low"}, "parallel_tool_calls": False, "max_output_tokens": 7}
    await client.responses.create(model="big", input="snow", tools=tools, **more)
    asked = behind.asked[-1]
    assert asked["messages"] == [{"role": "user", "content": "snow"}] and asked["reasoning_effort"] == "low"
    assert asked["tools"][0]["function"]["name"] == "add" and asked["parallel_tool_calls"] is False
