"""The openai package: sync, async, streaming helpers, parse, tools, embeddings, errors."""

from __future__ import annotations

import os
from typing import Any

import openai
import pytest
from pydantic import BaseModel

URL, MODEL = os.environ["CONFORMANCE_URL"], os.environ["CONFORMANCE_MODEL"]
MESSAGES: Any = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "How far is it?"}]
ASKED: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": 100, "temperature": 0.7, "seed": 5}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"unit": {"enum": ["m", "km"]}, "count": {"type": "integer"}},
    "required": ["unit", "count"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": "measure", "strict": True, "parameters": SCHEMA}}]


class Distance(BaseModel):
    unit: str
    count: int


@pytest.fixture(scope="module")
def client() -> openai.OpenAI:
    return openai.OpenAI(base_url=URL, api_key="none", max_retries=0, _strict_response_validation=True)


@pytest.fixture(scope="module")
def async_client() -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=URL, api_key="none", max_retries=0, _strict_response_validation=True)


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASKED)
    text, finish, usage = "", None, None
    for chunk in client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
        usage = chunk.usage or usage
    assert text and text == whole.choices[0].message.content and finish == whole.choices[0].finish_reason
    assert whole.usage is not None and usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert whole._request_id and whole.model == MODEL


async def test_the_async_client_says_the_same(client: openai.OpenAI, async_client: openai.AsyncOpenAI) -> None:
    one = await async_client.chat.completions.create(**ASKED)
    assert one.choices[0].message.content
    assert one.choices[0].message.content == client.chat.completions.create(**ASKED).choices[0].message.content


def test_parse_gives_an_object(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(**ASKED, response_format=Distance).choices[0].message.parsed
    assert isinstance(parsed, Distance)


def test_the_streaming_helper_parses_too(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**ASKED, response_format=Distance) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert isinstance(final.choices[0].message.parsed, Distance)


def test_the_streaming_helper_puts_calls_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**ASKED, tools=TOOLS, tool_choice="required") as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    (call, *_) = final.choices[0].message.tool_calls or []
    assert call.function.name == "measure" and call.function.parsed_arguments["unit"] in ("m", "km")


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "function": {"name": "measure"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "measure"}}],
            },
        },
    ],
)
def test_a_call_that_is_required_is_made(client: openai.OpenAI, choice: Any) -> None:
    reply = client.chat.completions.create(**ASKED, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    (call,) = reply.choices[0].message.tool_calls or []
    assert reply.choices[0].finish_reason == "tool_calls" and call.type == "function"
    Distance.model_validate_json(call.function.arguments)


def test_choices_log_probabilities_stops_and_legacy_texts(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**{**ASKED, "max_tokens": 6}, n=3, logprobs=True, top_logprobs=2)
    assert len(reply.choices) == 3 and len({choice.index for choice in reply.choices}) == 3
    assert all(
        choice.logprobs and choice.logprobs.content and len(choice.logprobs.content[0].top_logprobs) == 2
        for choice in reply.choices
    )
    text = client.completions.create(model=MODEL, prompt=["One", "Two"], max_tokens=4, echo=True, logprobs=None)
    assert [choice.text[:3] for choice in text.choices] == ["One", "Two"]


def test_embeddings_come_as_floats_and_as_base64() -> None:
    client = openai.OpenAI(base_url=URL, api_key="none", max_retries=0)
    plain = client.embeddings.create(model=MODEL, input=["near", "far"], encoding_format="float")
    packed = client.embeddings.create(model=MODEL, input=["near", "far"])  # base64, by itself
    assert [list(item.embedding) for item in packed.data] == [item.embedding for item in plain.data]


def test_errors_have_their_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**ASKED, "model": "no-such-model"})
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{**ASKED, "messages": [{"role": "user", "content": "word " * 9000}]})
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")
    assert MODEL in [model.id for model in client.models.list()]
