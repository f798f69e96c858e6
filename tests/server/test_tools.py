"""Calls of tools: read out of texts however they are cut, required of real engines, told to stock clients."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from parrot_compat.core.output_format import ToolStyle
from parrot_compat.core.tool_calls import ToolReader

CALL = '{"name": "add", "arguments": {"a": 1, "b": "é"}}'
TEXTS: list[tuple[ToolStyle, str, str, int]] = [
    ("hermes", f"<tool_call>\n{CALL}\n</tool_call>", "", 1),
    ("hermes", f"I add. \n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{CALL}</tool_call>", "I add.", 2),
    ("hermes", "a < b, <tool_ and nothing else \n", "a < b, <tool_ and nothing else \n", 0),
    ("hermes", "<tool_call>\nno json\n</tool_call>", "<tool_call>\nno json\n</tool_call>", 0),
    ("hermes", f"<tool_call>\n{CALL}", f"<tool_call>\n{CALL}", 0),
    ("llama3_json", CALL.replace("arguments", "parameters"), "", 1),
    ("llama3_json", '{"a": 1}', '{"a": 1}', 0),
    ("mistral", f"[TOOL_CALLS] [{CALL}, {CALL}]", "", 2),
    ("mistral", "Hello", "Hello", 0),
]


@pytest.mark.parametrize(("style", "text", "said", "calls"), TEXTS)
def test_calls_are_told_from_text(style: ToolStyle, text: str, said: str, calls: int) -> None:
    reader = ToolReader(style)
    assert reader.push(text)[0] + reader.end()[0] == said
    assert [json.loads(call.arguments) for call in reader.calls] == [{"a": 1, "b": "é"}] * calls
    assert len({call.id for call in reader.calls}) == calls


@given(which=st.sampled_from(TEXTS), cuts=st.lists(st.integers(0, 120), max_size=20))
def test_how_a_text_is_cut_changes_nothing(which: tuple[ToolStyle, str, str, int], cuts: list[int]) -> None:
    style, text, said, calls = which
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    reader = ToolReader(style)
    pieces = [reader.push(text[start:end])[0] for start, end in itertools.pairwise(places)]
    assert "".join(pieces) + reader.end()[0] == said
    assert len(reader.calls) == calls


# ---- a real engine -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[openai.AsyncOpenAI]:
    pytest.importorskip("torch")
    pytest.importorskip("llguidance")
    import asyncio

    from parrot_compat.compose import running
    from parrot_compat.server.listening import Listener
    from parrot_compat.settings import Settings

    settings = Settings(model="builtin:random", device="cpu", dtype="float32", kv_tokens=8192, max_model_len=2048)
    async with running(settings) as served:
        with Listener("127.0.0.1", 0) as listener:
            ready = asyncio.Event()
            serving = asyncio.create_task(listener.serve(served.app, drain_s=0, on_ready=ready.set))
            await ready.wait()
            async with openai.AsyncOpenAI(base_url=f"{listener.url}/v1", api_key="none", max_retries=0) as client:
                yield client
            listener.stop()
            await serving


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "unit": {"enum": ["m", "s"]}},
    "required": ["a", "unit"],
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "measure", "description": "Measures.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
ASKED: Any = {"model": "builtin:random", "messages": [{"role": "user", "content": "How long?"}], "max_tokens": 100}
NAMED: Any = {"type": "function", "function": {"name": "measure"}}


class Length(BaseModel):
    metres: int
    words: list[str]


async def test_parse_gives_the_object(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.parse(**ASKED, response_format=Length, temperature=1.0, seed=3)
    assert isinstance(reply.choices[0].message.parsed, Length)
    assert reply.choices[0].finish_reason == "stop"


async def test_structured_outputs_hold(client: openai.AsyncOpenAI) -> None:
    for form, fine in [({"choice": ["yes", "no"]}, ("yes", "no")), ({"regex": "ab{2}c"}, ("abbc",))]:
        reply = await client.chat.completions.create(**ASKED, extra_body={"structured_outputs": form})
        assert reply.choices[0].message.content in fine
        text = await client.completions.create(
            model="builtin:random", prompt="Say", extra_body={"structured_outputs": form}, max_tokens=20
        )
        assert text.choices[0].text in fine


async def test_a_required_call_is_whole_and_valid(client: openai.AsyncOpenAI) -> None:
    for choice in ("required", NAMED):
        reply = await client.chat.completions.create(
            **ASKED, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False
        )
        (call,) = reply.choices[0].message.tool_calls or []
        assert call.type == "function" and reply.choices[0].finish_reason == "tool_calls"
        assert reply.choices[0].message.content is None
        if call.function.name == "measure":
            arguments = json.loads(call.function.arguments)
            assert isinstance(arguments["a"], int) and arguments["unit"] in ("m", "s")


async def test_a_stream_tells_the_same_calls(client: openai.AsyncOpenAI) -> None:
    asked = {**ASKED, "tools": TOOLS, "tool_choice": NAMED, "temperature": 0}
    whole = (await client.chat.completions.create(**asked)).choices[0]
    calls, finish = [], None
    async for chunk in await client.chat.completions.create(**asked, stream=True):
        calls += chunk.choices[0].delta.tool_calls or []
        assert not chunk.choices[0].delta.content
        finish = chunk.choices[0].finish_reason or finish
    (call,) = whole.message.tool_calls or []
    assert call.type == "function"
    assert [(one.index, one.function and one.function.arguments) for one in calls] == [(0, call.function.arguments)]
    assert finish == whole.finish_reason == "tool_calls"


async def test_tools_that_need_not_be_called_leave_the_text(client: openai.AsyncOpenAI) -> None:
    for choice in ("auto", "none"):
        reply = await client.chat.completions.create(**{**ASKED, "max_tokens": 8}, tools=TOOLS, tool_choice=choice)
        assert reply.choices[0].message.content and reply.choices[0].message.tool_calls is None


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "?"}}}}, None),
        ({"extra_body": {"structured_outputs": {"regex": "("}}}, "structured_outputs"),
        ({"extra_body": {"structured_outputs": {"regex": "a", "choice": ["b"]}}}, "structured_outputs"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice"),
    ],
)
async def test_what_no_answer_can_be_held_to_is_refused(
    client: openai.AsyncOpenAI, change: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(**{**ASKED, **change})
    assert refused.value.param == (param or "response_format")
