"""litellm as a client: completions, streams, tools, usage, errors, embeddings."""

from __future__ import annotations

import os
from typing import Any

import litellm
import pytest

URL, MODEL = os.environ["CONFORMANCE_URL"], os.environ["CONFORMANCE_MODEL"]
CALL: dict[str, Any] = {
    "model": f"openai/{MODEL}",
    "api_base": URL,
    "api_key": "none",
    "messages": [{"role": "user", "content": "How far is it?"}],
    "max_tokens": 64,
    "temperature": 0.0,
    "num_retries": 0,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "measure",
            "parameters": {"type": "object", "properties": {"far": {"type": "boolean"}}, "required": ["far"]},
        },
    }
]


def test_a_stream_says_what_the_whole_answer_says() -> None:
    whole = litellm.completion(**CALL)
    chunks = list(litellm.completion(**CALL, stream=True, stream_options={"include_usage": True}))
    built = litellm.stream_chunk_builder(chunks)
    assert whole.choices[0].message.content
    assert built.choices[0].message.content == whole.choices[0].message.content
    assert built.usage.completion_tokens == whole.usage.completion_tokens


async def test_the_async_twin() -> None:
    assert (await litellm.acompletion(**CALL)).choices[0].message.content


def test_a_tool_that_is_required_is_called() -> None:
    reply = litellm.completion(**CALL, tools=TOOLS, tool_choice="required")
    assert reply.choices[0].finish_reason == "tool_calls"
    assert reply.choices[0].message.tool_calls[0].function.name == "measure"


def test_text_and_embeddings() -> None:
    text = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}", api_base=URL, api_key="none", prompt="Once", max_tokens=4
    )
    assert text.choices[0].text is not None
    reply = litellm.embedding(model=f"openai/{MODEL}", api_base=URL, api_key="none", input=["near", "far"])
    assert len(reply.data) == 2 and len(reply.data[0]["embedding"]) > 1


def test_errors_have_their_classes() -> None:
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**CALL, "model": "openai/no-such-model"})
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**{**CALL, "messages": [{"role": "user", "content": "word " * 9000}]})
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**{**CALL, "max_tokens": -1})
