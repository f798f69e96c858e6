"""The anthropic package on /v1/messages: sync, async, streaming helper, tools, counts, errors; strict validation."""

from __future__ import annotations

import os
from typing import Any

import anthropic
import pytest

URL, MODEL = os.environ["CONFORMANCE_URL"].removesuffix("/v1"), os.environ["CONFORMANCE_MODEL"]
ASKED: Any = {
    "model": MODEL,
    "max_tokens": 60,
    "extra_body": {"temperature": 0},  # the SDK has no word for it any more; the API takes it
    "system": [{"type": "text", "text": "Be brief. " * 20, "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "How far is it?"}]}],
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"unit": {"enum": ["m", "km"]}, "count": {"type": "integer"}},
    "required": ["unit", "count"],
    "additionalProperties": False,
}
TOOL: Any = {"name": "measure", "description": "Measures.", "input_schema": SCHEMA}
MUST_CALL: Any = {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}


@pytest.fixture(scope="module")
def client() -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0, _strict_response_validation=True)


def told(message: Any) -> list[dict[str, Any]]:
    """The blocks as they were sent; the helper has classes of its own for them."""
    return [{name: getattr(block, name) for name in ("type", block.type)} for block in message.content]


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message_has_content_an_end_and_usage(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ASKED)
    assert message.role == "assistant" and message.model == MODEL and message._request_id
    assert message.stop_reason in ("end_turn", "max_tokens") and message.usage.output_tokens > 0
    assert text_of(message) and {block.type for block in message.content} <= {"text", "thinking"}


def test_a_stream_comes_to_the_whole_message(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**ASKED)
    with client.messages.stream(**ASKED) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert told(final) == told(whole) and final.stop_reason == whole.stop_reason
    assert text and text == text_of(whole)
    assert final.usage.output_tokens == whole.usage.output_tokens


async def test_the_async_client_says_the_same(client: anthropic.Anthropic) -> None:
    async with anthropic.AsyncAnthropic(base_url=URL, api_key="none", max_retries=0) as other:
        one = await other.messages.create(**ASKED)
        async with other.messages.stream(**ASKED) as stream:
            streamed = await stream.get_final_message()
    assert text_of(one) and told(one) == told(streamed) == told(client.messages.create(**ASKED))


def test_a_prompt_that_comes_again_is_read_from_the_cache_and_counted_so(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(**{name: ASKED[name] for name in ("model", "system", "messages")})
    client.messages.create(**ASKED)
    usage = client.messages.create(**ASKED).usage
    assert usage.cache_read_input_tokens and usage.cache_read_input_tokens > 0
    assert usage.input_tokens + usage.cache_read_input_tokens == counted.input_tokens


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_call_that_is_required_is_made_and_its_result_taken(client: anthropic.Anthropic, is_streamed: bool) -> None:
    if is_streamed:
        with client.messages.stream(**ASKED, **MUST_CALL) as stream:
            kinds = [event.type for event in stream]
            message: Any = stream.get_final_message()
        assert kinds.count("input_json") > 1
    else:
        message = client.messages.create(**ASKED, **MUST_CALL)
    assert message.stop_reason == "tool_use"
    (call,) = [block for block in message.content if block.type == "tool_use"]
    assert call.name == "measure" and call.input["unit"] in ("m", "km") and isinstance(call.input["count"], int)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "12 km"}
    history = [*ASKED["messages"], {"role": "assistant", "content": message.content}]
    reply = client.messages.create(
        **ASKED | {"messages": [*history, {"role": "user", "content": [result]}]}, tools=[TOOL]
    )
    assert reply.usage.output_tokens > 0


def test_a_stop_sequence_is_named(client: anthropic.Anthropic) -> None:
    text = text_of(client.messages.create(**ASKED))
    assert len(text) > 4, "the model must say something for this test to stop it"
    stop = text[2:4]
    cut = client.messages.create(**ASKED, stop_sequences=[stop])
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)


def test_errors_are_the_sdks_own(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(**ASKED | {"model": "none"})
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content\[0\]"):
        client.messages.create(**ASKED | {"messages": [{"role": "user", "content": [image]}]})
