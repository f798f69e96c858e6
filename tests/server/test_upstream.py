"""A server behind this one: what it tells beside the text reaches the client in the words of both endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from starlette.responses import JSONResponse

from parrot_compat.core.engines.openai_server import OpenAIServerEngine
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.integrations.openai import prompt, said, variable
from parrot_compat.server.app import create_app
from parrot_compat.server.listening import Listener
from tests.core.scripted_server import ScriptedServer, serving
from tests.server.live import until

CHAT: Any = [{"role": "user", "content": "snow"}]
SNOW = "雪 ☃!"


@pytest.fixture(scope="module")
async def behind() -> AsyncIterator[ScriptedServer]:
    async with serving(ScriptedServer(lambda prompt: SNOW)) as server:
        yield server


@asynccontextmanager
async def before(behind: ScriptedServer, keep_alive_s: float = 15.0) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of ours that stands before it."""
    fleet = Fleet()
    fleet.add(await OpenAIServerEngine.connect(behind.base_url))
    async with Manager(fleet) as manager:
        with Listener("127.0.0.1", 0) as listener:
            ready = asyncio.Event()
            app = create_app(manager, keep_alive_s=keep_alive_s)
            running = asyncio.create_task(listener.serve(app, drain_s=0, on_ready=ready.set))
            await ready.wait()
            async with openai.AsyncOpenAI(
                base_url=f"{listener.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
            ) as client:
                yield client
            listener.stop()
            await running


@pytest.fixture(scope="module")
async def client(behind: ScriptedServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with before(behind) as client:
        yield client


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


async def test_counts_of_the_other_server_that_are_none_are_not_counted_and_the_next_are(
    client: openai.AsyncOpenAI, behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def counted() -> list[float]:
        scraped = await client.get(str(client.base_url.copy_with(path="/metrics")), cast_to=str)
        names = ("calls_finished", "prompt_tokens", "cached_tokens", "output_tokens")
        lines = [line for line in scraped.splitlines() if not line.startswith("#")]
        return [sum(float(line.split()[-1]) for line in lines if line.startswith(f"parrot_{n}_total")) for n in names]

    details: Any = {"prompt_tokens_details": {"cached_tokens": 0.5}}
    monkeypatch.setattr(behind, "usage", {"prompt_tokens": -1, "completion_tokens": "many", **details})
    before = await counted()
    told = (await client.chat.completions.create(model="big", messages=CHAT)).usage
    assert told is not None and (told.prompt_tokens, told.completion_tokens) == (0, 0)
    middle = await counted()
    assert [now - then for now, then in zip(middle, before, strict=True)] == [1, 0, 0, 0]
    monkeypatch.setattr(behind, "usage", {})
    told = (await client.chat.completions.create(model="big", messages=CHAT)).usage
    assert told is not None and told.completion_tokens == len(SNOW)
    new = [now - then for now, then in zip(await counted(), middle, strict=True)]
    assert new == [1, told.prompt_tokens, told.prompt_tokens // 2, len(SNOW)]


async def test_a_session_tells_the_tokens_that_the_other_server_has_counted(client: openai.AsyncOpenAI) -> None:
    said = {"parrot": {"session": "counted"}}
    usage = (await client.chat.completions.create(model="big", messages=CHAT, extra_body=said)).usage
    seen: Any = await client.get("/parrot/sessions/counted", cast_to=object)
    assert usage is not None and [call["prompt_tokens"] for call in seen["calls"]] == [usage.prompt_tokens]


# ---- what the other server refuses ---------------------------------------------------------------------------

Ask = Callable[[openai.AsyncOpenAI, bool], Any]


def chat(client: openai.AsyncOpenAI, stream: bool) -> Any:
    return client.chat.completions.create(model="big", messages=CHAT, stream=stream)  # type: ignore[call-overload]


def text(client: openai.AsyncOpenAI, stream: bool) -> Any:
    return client.completions.create(model="big", prompt=["snow", "ice"], stream=stream)  # type: ignore[call-overload]


def message(client: openai.AsyncOpenAI, stream: bool) -> Any:
    body = {"model": "big", "messages": CHAT, "max_tokens": 50, "stream": stream}
    return client.post("/messages", body=body, cast_to=object)


EACH: Iterable[Any] = pytest.mark.parametrize("ask", [chat, text, message])


@EACH
async def test_a_refusal_of_the_other_server_has_its_status_streamed_too(
    client: openai.AsyncOpenAI, behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    said = {"error": {"message": "no top_k above 5 here", "param": "top_k"}}
    monkeypatch.setattr(behind, "refusal", JSONResponse(said, 400))
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="no top_k above 5 here"):
            await ask(client, stream)


@EACH
async def test_a_full_server_is_told_as_one_streamed_too(
    client: openai.AsyncOpenAI, behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    full = JSONResponse({"error": {"message": "come back later"}}, 429, headers={"retry-after": "7"})
    monkeypatch.setattr(behind, "refusal", full)
    told = []
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as refused:
            await ask(client, stream)
        response = refused.value.response
        told.append((response.status_code, response.headers["retry-after"], response.json()))
    assert told[0] == told[1]
    assert told[0][:2] == (503, "7") and "come back later" in str(told[0][2])


async def test_a_stream_of_an_answer_that_is_slow_to_begin_begins_none_the_less(
    behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "pauses_at", 0)
    async with before(behind, keep_alive_s=0.05) as client, asyncio.timeout(30):
        stream = await client.chat.completions.create(model="big", messages=CHAT, stream=True)
        await until(lambda: not behind.speaks.is_set())  # it has come to where it pauses
        behind.speaks.set()
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(said) == SNOW


async def test_a_stream_whose_call_waits_for_an_input_begins_at_once(behind: ScriptedServer) -> None:
    async with before(behind, keep_alive_s=60) as client, asyncio.timeout(30):
        room: Any = await client.post("/parrot/sessions", cast_to=object, body={})
        variables = f"/parrot/sessions/{room['id']}/variables"
        await client.post(variables, cast_to=object, body={"name": "x"})
        told = said(prompt("{x}", x=variable("x")), session=room["id"])
        stream = await client.chat.completions.create(model="big", stream=True, **told)
        await client.put(f"{variables}/x", cast_to=object, body={"text": "a text"})
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == SNOW


async def test_a_client_that_leaves_before_its_stream_begins_is_left_there_too(
    behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "pauses_at", 0)
    behind.was_asked.clear()
    behind.was_left.clear()
    async with before(behind, keep_alive_s=60) as client, asyncio.timeout(30):
        asking = asyncio.create_task(client.chat.completions.create(model="big", messages=CHAT, stream=True))
        await behind.was_asked.wait()
        asking.cancel()
        await behind.was_left.wait()
        behind.speaks.set()


async def test_what_the_model_says_instead_of_an_answer_is_told_as_its_refusal(
    client: openai.AsyncOpenAI, behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "script", lambda prompt: "")
    monkeypatch.setattr(behind, "deltas", [{"refusal": "I can"}, {"refusal": "not."}])
    monkeypatch.setattr(behind, "reason", "stop")
    (whole,) = (await chat(client, False)).choices
    assert (whole.message.refusal, whole.message.content, whole.finish_reason) == ("I cannot.", None, "stop")
    chunks = [chunk.choices[0] async for chunk in await chat(client, True)]
    assert [chunk.delta.refusal for chunk in chunks if chunk.delta.refusal] == ["I can", "not."]
    assert not any(chunk.delta.content for chunk in chunks) and chunks[-1].finish_reason == "stop"
    told = await message(client, False)
    assert (told["content"], told["stop_reason"]) == ([{"type": "text", "text": "I cannot."}], "refusal")


async def test_who_reads_the_output_of_a_call_that_was_refused_is_told_the_refusal(
    client: openai.AsyncOpenAI, behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "script", lambda prompt: "")
    monkeypatch.setattr(behind, "deltas", [{"refusal": "I cannot."}])
    monkeypatch.setattr(behind, "reason", "stop")
    said = {"parrot": {"session": "refused", "output": {"name": "told"}}}
    await client.chat.completions.create(model="big", messages=CHAT, extra_body=said)
    variable: Any = await client.get("/parrot/sessions/refused/variables/told", cast_to=object)
    assert (variable["state"], variable["text"]) == ("ready", "I cannot.")


async def test_an_answer_that_a_content_filter_has_ended_says_so(
    client: openai.AsyncOpenAI, behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "reason", "content_filter")
    for ask in (chat, text):
        assert {choice.finish_reason for choice in (await ask(client, False)).choices} == {"content_filter"}
    ends = [chunk.choices[0].finish_reason async for chunk in await chat(client, True)]
    assert {reason for reason in ends if reason is not None} == {"content_filter"}
    told = await message(client, False)
    assert (told["content"], told["stop_reason"]) == ([{"type": "text", "text": SNOW}], "refusal")


async def test_log_probabilities_are_asked_of_text_and_not_of_calls(
    client: openai.AsyncOpenAI, behind: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    monkeypatch.setattr(behind, "script", lambda prompt: "")
    monkeypatch.setattr(behind, "deltas", [{"tool_calls": [call]}])
    monkeypatch.setattr(behind, "tells_logprobs", False)
    asked: Any = {"model": "big", "messages": CHAT, "logprobs": True}
    (told,) = (await client.chat.completions.create(**asked)).choices
    assert told.finish_reason == "tool_calls" and told.message.tool_calls
    monkeypatch.setattr(behind, "deltas", [{"content": "I add."}])
    with pytest.raises(openai.APIStatusError, match="log probabilities"):
        await client.chat.completions.create(**asked)


async def test_a_call_that_is_required_is_required_there_and_the_form_is_moot(
    client: openai.AsyncOpenAI, behind: ScriptedServer
) -> None:
    tools: Any = [{"type": "function", "function": {"name": name}} for name in ("add", "now")]
    named: Any = {"type": "function", "function": {"name": "now"}}
    form: Any = {"type": "json_object"}
    for choice, offered in (("required", tools), (named, tools[1:])):
        asked: Any = {"model": "big", "messages": CHAT, "tools": tools, "tool_choice": choice}
        await client.chat.completions.create(**asked, response_format=form)
        sent = behind.asked[-1]
        assert (sent["tools"], sent["tool_choice"]) == (offered, "required") and "response_format" not in sent


async def test_a_schema_of_a_json_object_is_asked_there(client: openai.AsyncOpenAI, behind: ScriptedServer) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form: Any = {"type": "json_object", "schema": schema}
    await client.chat.completions.create(model="big", messages=CHAT, response_format=form)
    sent = behind.asked[-1]["response_format"]
    assert sent["type"] == "json_schema" and (sent["json_schema"]["schema"], sent["json_schema"]["strict"]) == (
        schema,
        False,
    )
