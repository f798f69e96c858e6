"""/v1/chat/completions, through OpenAI's own client with strict validation."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from parrot_compat.core.output_format import AnyJson, JsonSchema
from parrot_compat.server.openai.chat_schema import ChatRequest

from .live import Live, events_of, send

MODEL = "org/scripted"
FRANCE: Any = [{"role": "user", "content": "What is the capital of France?"}]
PATH = "/v1/chat/completions"


async def test_an_answer_says_who_it_is_and_what_it_cost(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=FRANCE)
    assert answer.choices[0].message.content == "Paris is the capital of France."
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    assert answer.system_fingerprint
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens >= len("Paris is the capital of France.")


async def test_a_model_left_out_is_the_first_one_served(server: Live) -> None:
    reply = await send(server, "POST", PATH, {"messages": FRANCE})
    assert reply.status == 200
    assert reply.json()["model"] == MODEL


async def test_a_stream_begins_with_the_role_and_adds_up_to_the_answer(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model=MODEL, messages=FRANCE)
    stream = await client.chat.completions.create(model=MODEL, messages=FRANCE, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


async def test_include_usage_adds_one_last_chunk_without_choices(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=FRANCE, stream=True, stream_options={"include_usage": True}
    )
    *others, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert last.usage is not None and last.usage.completion_tokens > 0
    assert all(chunk.usage is None and chunk.choices for chunk in others)


TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")


@pytest.mark.parametrize("n", [1, 2])
async def test_each_chunk_tells_what_was_used_so_far_where_that_was_asked_for(server: Live, n: int) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    asked = {"messages": FRANCE, "n": n, "stream": True, "stream_options": options}
    reply = await send(server, "POST", "/v1/chat/completions", asked)
    assert "x-parrot-ignored" not in reply.headers
    usages = [event["usage"] for event in events_of(reply)]
    said = [usage["completion_tokens"] for usage in usages if usage is not None]
    assert said == sorted(said) and len(set(said)) > 3
    assert usages[0] is None  # the role comes before any token
    assert {usage["prompt_tokens"] for usage in usages if usage is not None} == {usages[-1]["prompt_tokens"]}
    assert [usages[-2][name] for name in TOKENS] == [usages[-1][name] for name in TOKENS]


async def test_a_stream_cannot_be_buffered_or_cached_on_its_way(server: Live) -> None:
    reply = await send(server, "POST", PATH, {"messages": FRANCE, "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"
    assert len(events_of(reply)) >= 3


async def test_text_that_some_clients_take_for_a_line_end_arrives_whole(client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "snow"}]
    stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "雪 ☃ \u2028 \x85 \U0001d530"


async def test_n_answers_are_n_choices_of_one_prompt_counted_once(client: openai.AsyncOpenAI) -> None:
    one = await client.chat.completions.create(model=MODEL, messages=FRANCE)
    three = await client.chat.completions.create(model=MODEL, messages=FRANCE, n=3, seed=7)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert one.usage is not None and three.usage is not None
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    assert three.usage.completion_tokens == 3 * one.usage.completion_tokens


async def test_n_streams_come_in_one_stream_and_each_one_ends(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=FRANCE, n=2, stream=True)
    texts, finishes = {0: "", 1: ""}, {}
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finishes[choice.index] = choice.finish_reason
    assert texts == {0: "Paris is the capital of France.", 1: "Paris is the capital of France."}
    assert finishes == {0: "stop", 1: "stop"}


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_an_answer_cut_at_its_length_says_so(client: openai.AsyncOpenAI, field: str) -> None:
    asked: Any = {field: 5}
    answer = await client.chat.completions.create(model=MODEL, messages=FRANCE, **asked)
    assert answer.choices[0].message.content == "Paris"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None and answer.usage.completion_tokens == 5


@pytest.mark.parametrize("stop", ["three", ["nothing", "three"]])
async def test_a_stop_string_ends_the_answer_and_is_not_in_it(client: openai.AsyncOpenAI, stop: Any) -> None:
    messages: Any = [{"role": "user", "content": "count"}]
    answer = await client.chat.completions.create(model=MODEL, messages=messages, stop=stop)
    assert answer.choices[0].message.content == "one two "
    assert answer.choices[0].finish_reason == "stop"


async def test_text_parts_are_one_text(server: Live) -> None:
    parts = [{"type": "text", "text": "What is the"}, {"type": "text", "text": "capital of France?"}]
    as_parts = await send(server, "POST", "/tokenize", {"messages": [{"role": "user", "content": parts}]})
    as_text = await send(
        server, "POST", "/tokenize", {"messages": [{"role": "user", "content": "What is the\ncapital of France?"}]}
    )
    assert as_parts.status == 200
    assert as_parts.json()["tokens"] == as_text.json()["tokens"]


async def test_a_developer_is_what_templates_call_system(server: Live) -> None:
    def said(role: str) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": "Be brief."}, {"role": "user", "content": "count"}]}

    developer = await send(server, "POST", "/tokenize", said("developer"))
    assert developer.json()["tokens"] == (await send(server, "POST", "/tokenize", said("system"))).json()["tokens"]


async def test_a_conversation_with_past_tool_calls_can_be_continued(client: openai.AsyncOpenAI) -> None:
    messages: Any = [
        {"role": "user", "content": "Look up the capital of France."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q": "x"}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "It begins with P."},
    ]
    answer = await client.chat.completions.create(model=MODEL, messages=messages)
    assert answer.choices[0].message.content == "Paris is the capital of France."


async def test_token_ids_are_given_where_they_are_asked_for(server: Live) -> None:
    asked = {"messages": FRANCE, "return_token_ids": True}
    whole = (await send(server, "POST", PATH, asked)).json()
    prompt_ids = (await send(server, "POST", "/tokenize", {"messages": FRANCE})).json()["tokens"]
    assert whole["prompt_token_ids"] == prompt_ids
    assert len(whole["choices"][0]["token_ids"]) == whole["usage"]["completion_tokens"]
    chunks = events_of(await send(server, "POST", PATH, {**asked, "stream": True}))
    assert chunks[0]["prompt_token_ids"] == prompt_ids
    streamed = [token for chunk in chunks for token in chunk["choices"][0].get("token_ids", [])]
    assert streamed == whole["choices"][0]["token_ids"]


async def test_a_prompt_seen_before_is_reported_as_cached(client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Remember this: " + "a long story " * 40}]
    await client.chat.completions.create(model=MODEL, messages=messages)
    again = await client.chat.completions.create(model=MODEL, messages=messages)
    assert again.usage is not None and again.usage.prompt_tokens_details is not None
    cached = again.usage.prompt_tokens_details.cached_tokens
    assert cached is not None and 0 < cached < again.usage.prompt_tokens


async def test_fields_without_effect_are_named_in_a_receipt(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=FRANCE,
        user="me",
        presence_penalty=0,
        logprobs=False,
        response_format={"type": "text"},
        extra_body={"my_invention": 1, "bad\r\nname": 2},
    )
    assert raw.headers["x-parrot-ignored"] == "my_invention, user, +1"
    assert (await send_plain(client)).headers.get("x-parrot-ignored") is None


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ({"type": "text", "strict": True, "schema": {}}, ["schema", "strict"]),
        ({"type": "json_object", "strict": True}, ["strict"]),
        ({"type": "json_object", "schema": {"type": "object"}, "json_schema": {"name": "x"}}, ["json_schema"]),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "mood": 1}, "schema": {}},
            ["json_schema.mood", "schema"],
        ),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True, "mood": None}}, []),
    ],
)
def test_members_of_a_form_without_effect_are_named(form: dict[str, Any], names: list[str]) -> None:
    asked = ChatRequest.model_validate({"messages": FRANCE, "response_format": form})
    assert sorted(asked.ignored()) == [f"response_format.{name}" for name in names]


def test_a_json_object_has_the_schema_that_comes_with_it_as_far_as_it_can_be_held_to_it() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for said, form in (({"schema": schema}, JsonSchema.of(schema, strict=False)), ({"schema": {}}, AnyJson())):
        asked = {"messages": FRANCE, "response_format": {"type": "json_object", **said}}
        assert ChatRequest.model_validate(asked).output_format() == form


async def send_plain(client: openai.AsyncOpenAI) -> Any:
    return await client.chat.completions.with_raw_response.create(model=MODEL, messages=FRANCE)


async def test_a_prompt_too_long_is_refused_in_the_words_that_clients_look_for(client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "x" * 5000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="prompt is too long") as caught:
            await client.chat.completions.create(model=MODEL, messages=messages, stream=stream)
        assert caught.value.code == "context_length_exceeded"


async def test_an_unknown_model_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-unknown") as caught:
        await client.chat.completions.create(model="gpt-unknown", messages=FRANCE)
    assert caught.value.code == "model_not_found"


async def test_a_sensible_request_id_of_the_clients_is_kept(server: Live, client: openai.AsyncOpenAI) -> None:
    kept = await send(server, "POST", PATH, {"messages": FRANCE}, {"x-request-id": "trace-42.a"})
    assert kept.headers["x-request-id"] == "trace-42.a"
    assert int(kept.headers["openai-processing-ms"]) >= 0
    replaced = await send(server, "POST", PATH, {"messages": FRANCE}, {"x-request-id": "<script>" * 40})
    assert replaced.headers["x-request-id"].startswith("req_")
    answer = await client.chat.completions.create(model=MODEL, messages=FRANCE)
    assert answer._request_id is not None and answer._request_id.startswith("req_")


async def test_the_synchronous_client_streams_too(server: Live) -> None:
    def run() -> str:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", _strict_response_validation=True) as client:
            stream = client.chat.completions.create(model=MODEL, messages=FRANCE, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert await asyncio.to_thread(run) == "Paris is the capital of France."
