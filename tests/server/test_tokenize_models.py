"""/tokenize, /detokenize, /v1/models and the probes."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from parrot_compat import __version__

from .live import Live, send


async def test_a_text_becomes_ids_and_the_ids_become_the_text(server: Live) -> None:
    ids = (await send(server, "POST", "/tokenize", {"prompt": "snow ☃"})).json()
    assert ids == {"count": 6, "max_model_len": 4096, "tokens": list(map(ord, "snow ☃"))}
    back = await send(server, "POST", "/detokenize", {"tokens": ids["tokens"]})
    assert back.json() == {"prompt": "snow ☃"}
    assert (await send(server, "POST", "/detokenize", {"tokens": []})).json() == {"prompt": ""}


@pytest.mark.parametrize(("path", "body"), [("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [120]})])
async def test_fields_without_effect_are_named(server: Live, path: str, body: dict[str, Any]) -> None:
    reply = await send(server, "POST", path, {**body, "user": "me", "my_invention": 1})
    assert reply.headers["x-parrot-ignored"] == "my_invention, user"
    assert "x-parrot-ignored" not in (await send(server, "POST", path, body)).headers


async def test_many_texts_are_tokenised_at_once_each_by_itself(server: Live) -> None:
    answer = (await send(server, "POST", "/tokenize", {"prompt": ["ab", "", "☃"]})).json()
    assert answer == {"count": 3, "max_model_len": 4096, "tokens": [[97, 98], [], [ord("☃")]]}


async def test_the_ids_of_messages_are_those_that_a_chat_would_run(server: Live, client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "count"}]
    tokens = (await send(server, "POST", "/tokenize", {"messages": messages})).json()
    answer = await client.chat.completions.create(model="org/scripted", messages=messages)
    assert answer.usage is not None and answer.usage.prompt_tokens == tokens["count"]


async def test_tools_count_as_they_do_in_a_chat(server: Live, client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "count"}]
    tools: Any = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    tokens = (await send(server, "POST", "/tokenize", {"messages": messages, "tools": tools})).json()
    answer = await client.chat.completions.create(model="org/scripted", messages=messages, tools=tools)
    assert answer.usage is not None and answer.usage.prompt_tokens == tokens["count"]
    reply = await send(server, "POST", "/tokenize", {"prompt": "x", "tools": tools})
    assert reply.status == 400 and reply.error["param"] == "tools"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": "x", "messages": [{"role": "user", "content": "x"}]},
        {"prompt": "x", "add_special_tokens": False},
        {"prompt": []},
        {"prompt": ["x", 1]},
        {"prompt": ["x"] * 4097},
        {"prompt": "x", "return_token_strs": True},
    ],
)
async def test_what_cannot_be_tokenised_as_asked_is_refused(server: Live, body: dict[str, Any]) -> None:
    reply = await send(server, "POST", "/tokenize", body)
    assert reply.status == 400
    assert reply.error["param"] in ("prompt", "add_special_tokens", "return_token_strs")


async def test_models_are_listed_and_described_by_name_with_slashes(client: openai.AsyncOpenAI) -> None:
    (listed,) = (await client.models.list()).data
    assert listed.id == "org/scripted"
    described = await client.models.retrieve("org/scripted")
    assert described == listed
    assert (described.model_extra or {})["max_model_len"] == 4096
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("org/other")


async def test_probes_answer(server: Live) -> None:
    assert (await send(server, "GET", "/health")).json() == {"status": "ok", "models": ["org/scripted"]}
    assert (await send(server, "HEAD", "/health")).status == 200
    assert (await send(server, "GET", "/version")).json() == {"version": __version__}


async def test_the_description_of_the_api_has_every_body(server: Live) -> None:
    schema = (await send(server, "GET", "/openapi.json")).json()
    for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
        reference = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        described = schema["components"]["schemas"][reference.rpartition("/")[2]]
        assert described["properties"]
    chat = schema["components"]["schemas"]["ChatRequest"]
    assert chat["required"] == ["messages"]
