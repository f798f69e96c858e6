"""Calls of tools: required of real engines, told to stock clients."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from parrot_compat.core.call import Finish, Sampling, Usage
from parrot_compat.core.engine import Chunk
from parrot_compat.core.output_format import AnyJson, JsonSchema, OutputFormat, Regex, ToolCalls, ToolStyle, size_of
from parrot_compat.core.reading import Reader
from parrot_compat.core.tool_calls import CallPiece
from parrot_compat.server.openai.tools import Tool, reading_of, tool_use


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[openai.AsyncOpenAI]:
    pytest.importorskip("torch")
    pytest.importorskip("llguidance")
    from parrot_compat.settings import Settings

    from .real import client_of, listening

    settings = Settings(model="builtin:random", device="cpu", dtype="float32", kv_tokens=8192, max_model_len=2048)
    async with listening(settings) as (url, _), client_of(url) as client:
        yield client


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "unit": {"enum": ["m", "s"]}},
    "required": ["a", "unit"],
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "measure", "description": "Measures.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
UNHELD: Any = {
    "type": "function",
    "function": {
        "name": "count",
        "parameters": {"properties": {"a": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}}},
        "strict": True,
    },
}
"""No engine holds an answer to `uniqueItems`."""
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


async def test_where_a_call_is_required_the_form_of_an_answer_is_moot(client: openai.AsyncOpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "length", "schema": Length.model_json_schema()}}
    for choice in ("required", NAMED):
        asked = {**ASKED, "tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False, "response_format": form}
        (told,) = (await client.chat.completions.create(**asked)).choices
        (call,) = told.message.tool_calls or []
        assert call.type == "function" and isinstance(json.loads(call.function.arguments), dict)
        assert (told.finish_reason, told.message.content) == ("tool_calls", None)


async def test_a_json_object_that_has_a_schema_is_held_to_it(client: openai.AsyncOpenAI) -> None:
    form: Any = {"type": "json_object", "schema": SCHEMA}
    for seed in range(3):
        asked = {**ASKED, "response_format": form, "temperature": 1.0, "seed": seed}
        said = json.loads((await client.chat.completions.create(**asked)).choices[0].message.content or "")
        assert isinstance(said["a"], int) and said["unit"] in ("m", "s")


async def test_a_stream_tells_the_same_calls(client: openai.AsyncOpenAI) -> None:
    asked = {**ASKED, "tools": TOOLS, "tool_choice": NAMED, "temperature": 0}
    whole = (await client.chat.completions.create(**asked)).choices[0]
    pieces, finish = [], None
    async for chunk in await client.chat.completions.create(**asked, stream=True):
        pieces += chunk.choices[0].delta.tool_calls or []
        assert not chunk.choices[0].delta.content
        finish = chunk.choices[0].finish_reason or finish
    (call,) = whole.message.tool_calls or []
    assert call.type == "function"
    told = [piece.function for piece in pieces if piece.function is not None]
    assert len(told) == len(pieces) > 2 and {piece.index for piece in pieces} == {0}
    assert [one.name for one in told] == [call.function.name, *[None] * (len(told) - 1)]
    assert pieces[0].id and not any(piece.id for piece in pieces[1:])
    assert "".join(one.arguments or "" for one in told) == call.function.arguments
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
        (
            {"tools": TOOLS, "tool_choice": "required", "extra_body": {"structured_outputs": {"regex": "a"}}},
            "tool_choice",
        ),
        ({"tools": [UNHELD], "tool_choice": "required"}, "tools"),
        ({"tools": [UNHELD], "tool_choice": "required", "response_format": {"type": "json_object"}}, "tools"),
        ({"tools": [UNHELD], "tool_choice": "auto"}, "tools"),
    ],
)
async def test_what_no_answer_can_be_held_to_is_refused(
    client: openai.AsyncOpenAI, change: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(**{**ASKED, **change})
    assert refused.value.param == (param or "response_format")


def a_tool(**fields: Any) -> Tool:
    return Tool.model_validate({"type": "function", "function": {"name": "measure", "parameters": SCHEMA, **fields}})


def test_calls_of_strict_tools_are_held_to_their_schemas_also_where_none_is_required() -> None:
    use = tool_use([a_tool(strict=True), a_tool(name="now")], "auto", True, "hermes")
    assert use is not None and not use.held(Sampling(), obeys_formats=True).format.is_required  # type: ignore[union-attr]
    assert use.held(Sampling(), obeys_formats=False).format is None
    assert use.held(Sampling(format=AnyJson()), obeys_formats=False).format == AnyJson()
    for tools, style in (([a_tool()], "hermes"), ([a_tool(strict=True)], "llama3_json")):
        free = tool_use(tools, "auto", True, style)  # type: ignore[arg-type]
        assert free is not None and free.held(Sampling(), obeys_formats=True).format is None


@pytest.mark.parametrize(
    ("style", "form", "may_call"),
    [
        ("hermes", AnyJson(), True),
        ("hermes", JsonSchema.of({"type": "array"}), True),
        ("mistral_args", JsonSchema.of({"type": "array"}), True),
        ("mistral", JsonSchema.of({"type": "object"}), True),
        ("mistral", JsonSchema.of({"type": "array"}), False),  # its calls are a list too
        ("granite", JsonSchema.of({"type": "object"}), True),
        ("granite", JsonSchema.of({"type": "array"}), False),
        ("qwen3_coder", JsonSchema.of({"type": "array"}), True),
        ("llama3_json", AnyJson(), False),  # its calls are objects too
        ("hermes", Regex("a+"), False),
    ],
)
def test_an_answer_that_has_tools_and_a_form_is_calls_or_has_the_form(
    style: ToolStyle, form: OutputFormat, may_call: bool
) -> None:
    use = tool_use([a_tool(), a_tool(name="now")], "auto", True, style)
    assert use is not None
    held = use.held(Sampling(format=form), obeys_formats=True).format
    reading = reading_of(use, held)
    if may_call:
        assert isinstance(held, ToolCalls) and held.answer == form and not held.is_required and not held.is_amid_text
        assert [name for name, _ in held.tools] == ["measure", "now"]
        assert (reading.tools, reading.names) == (style, ("measure", "now"))
    else:
        assert held == form and reading.tools is None


def test_a_style_whose_arguments_are_plain_text_is_read_with_the_schemas_that_say_what_they_are() -> None:
    tools = [a_tool(), a_tool(name="now", parameters=None)]
    for style, schemas in (("qwen3_coder", {"measure": SCHEMA, "now": {}}), ("hermes", {})):
        use = tool_use(tools, "auto", True, style)  # type: ignore[arg-type]
        assert reading_of(use, None).schemas == schemas


async def test_an_answer_that_may_be_calls_or_json_is_one_of_the_two(client: openai.AsyncOpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "length", "schema": Length.model_json_schema()}}
    found = set()
    for seed in (0, 1, 2, 19, 25, 29):  # the last three call: of another vocabulary other ones would
        asked = {**ASKED, "tools": TOOLS, "response_format": form, "temperature": 1.0, "seed": seed}
        (choice,) = (await client.chat.completions.create(**asked)).choices
        calls = choice.message.tool_calls or []
        found.add(choice.finish_reason)
        assert bool(calls) == (choice.finish_reason == "tool_calls") == (choice.message.content is None)
        for call in calls:
            assert call.type == "function" and isinstance(json.loads(call.function.arguments), dict)
        if choice.message.content is not None:
            assert choice.finish_reason == "stop" and Length.model_validate_json(choice.message.content)
    assert found == {"stop", "tool_calls"}


async def test_strict_tools_that_need_not_be_called_leave_the_text(client: openai.AsyncOpenAI) -> None:
    strict: Any = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
    asked = {**ASKED, "max_tokens": 8, "temperature": 0}
    (choice,) = (await client.chat.completions.create(**asked, tools=strict)).choices
    assert choice.message.content and choice.message.tool_calls is None and choice.finish_reason == "length"


def test_an_answer_held_to_a_form_of_its_own_is_no_call_though_it_looks_like_one() -> None:
    """Llama's and Mistral's calls have no mark: {"name": "Bob"} may be one."""
    use = tool_use([a_tool()], "auto", is_parallel=False, style="llama3_json")
    held = reading_of(use, JsonSchema.of({"type": "object"}))
    said = Reader(held).read(Chunk(text='{"name": "Bob"}', finish=Finish.STOP, usage=Usage()))
    assert (said.text, said.calls, said.finish) == ('{"name": "Bob"}', (), Finish.STOP)
    free = Reader(reading_of(use, None)).read(Chunk(text='{"name": "Bob"}', finish=Finish.STOP, usage=Usage()))
    assert [piece.name for piece in free.calls] == ["Bob"]
    another = (CallPiece(index=0, id="a", name="f"), CallPiece(index=1, id="b", name="g"))
    assert Reader(held).read(Chunk(calls=another)).calls == another[:1], "a server behind us tells calls by itself"


def test_beside_a_form_of_its_own_an_answer_is_not_refused_for_tools_that_need_not_be_called() -> None:
    many = [a_tool(name=f"t{n}", parameters={"description": "x" * 2_000}) for n in range(60)]
    use = tool_use(many, "auto", True, "hermes")
    assert use is not None
    held = use.held(Sampling(format=AnyJson()), True).format
    assert isinstance(held, ToolCalls) and held.answer == AnyJson() and size_of(held) < 65_536


async def test_a_tool_that_no_answer_can_be_held_to_is_none_the_less_offered_beside_a_form(
    client: openai.AsyncOpenAI,
) -> None:
    strange: Any = {"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/nowhere"}}}
    reply = await client.chat.completions.create(**ASKED, tools=[strange], response_format={"type": "json_object"})
    assert reply.choices[0].message.content or reply.choices[0].message.tool_calls
