"""OpenAI's Responses API: a request is the chat that says the same, and errors are told in its own words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.output_format import JsonSchema, ToolCalls
from parrot_compat.server.hints import Hints
from parrot_compat.server.limits import RequestLimits
from parrot_compat.server.openai.chat_schema import ChatRequest
from parrot_compat.server.responses.responses_schema import ResponsesRequest
from parrot_compat.server.responses.translation import translated
from tests.server.live import Live, live, send

from .asking import ADD, HELLO, PATH, TOOL, Thinking, ask, said

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": HELLO}
CALLED = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
SAID = {"type": "function_call_output", "call_id": "c1", "output": "3"}
LIMITED = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}


def text(said: str, kind: str = "input_text") -> dict[str, Any]:
    return {"type": kind, "text": said}


def chat_of(input: Any = HELLO, **change: Any) -> ChatRequest:
    body, _ = translated(ResponsesRequest.model_validate({"input": input} | change), Hints())
    body.check(RequestLimits())
    return body


@pytest.mark.parametrize(
    ("asked", "messages"),
    [
        ({"input": HELLO}, [USER]),
        ({"input": [USER]}, [USER]),
        ({"input": [{"type": "message", "role": "user", "content": [text(HELLO)]}]}, [USER]),
        ({"input": HELLO, "instructions": "Be brief."}, [{"role": "system", "content": "Be brief."}, USER]),
        (
            {"input": [{"role": "developer", "content": "Be brief."}, USER]},
            [{"role": "developer", "content": "Be brief."}, USER],
        ),
        (
            {"input": [{"role": "system", "content": [text("In French.")]}, USER], "instructions": "Be brief."},
            [{"role": "system", "content": "Be brief.\nIn French."}, USER],
        ),
        (
            {"input": [USER, {"role": "assistant", "content": [text("Paris.", "output_text")]}, USER]},
            [USER, {"role": "assistant", "content": "Paris."}, USER],
        ),
        (
            {"input": [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, USER]},
            [USER, {"role": "assistant", "content": None, "refusal": "No."}, USER],
        ),
        (
            {
                "input": [
                    USER,
                    CALLED,
                    CALLED | {"call_id": "c2"},
                    SAID,
                    SAID | {"call_id": "c2", "output": [text("4")]},
                ]
            },
            [
                USER,
                {"role": "assistant", "tool_calls": [CHAT_CALL, CHAT_CALL | {"id": "c2"}]},
                {"role": "tool", "tool_call_id": "c1", "content": "3"},
                {"role": "tool", "tool_call_id": "c2", "content": "4"},
            ],
        ),
        (
            {
                "input": [
                    USER,
                    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [text("Hm.", "reasoning_text")]},
                    {"role": "assistant", "content": "I add."},
                    CALLED,
                    SAID,
                ]
            },
            [
                USER,
                {"role": "assistant", "reasoning_content": "Hm.", "content": "I add.", "tool_calls": [CHAT_CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "3"},
            ],
        ),
        (
            {"input": [USER, {"type": "reasoning", "summary": [text("Hm.", "summary_text")]}, USER]},
            [USER, {"role": "assistant", "reasoning_content": "Hm.", "content": ""}, USER],
        ),
    ],
)
async def test_a_request_has_the_prompt_of_the_equal_chat(
    asked: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    seen: list[str] = []

    def script(prompt: str) -> str:
        seen.append(prompt)
        return "Well."

    async with live(script) as server:
        answer = await ask(server, **asked, tools=[TOOL], seed=1)
        function = {name: TOOL[name] for name in ("name", "description", "parameters")}
        body = {"messages": messages, "tools": [{"type": "function", "function": function}], "seed": 1}
        reply = await send(server, "POST", CHAT, body)
    assert said(answer) == reply.json()["choices"][0]["message"]["content"] == "Well."
    assert seen[0] == seen[1] and len(seen) == 2


def test_what_the_assistant_thought_is_in_the_messages() -> None:
    thought = {"type": "reasoning", "content": [text("Hm.", "reasoning_text")], "encrypted_content": "x"}
    body = chat_of([USER, thought, {"role": "assistant", "content": "Yes."}, USER])
    assert [message.role for message in body.messages] == ["user", "assistant", "user"]
    assert body.messages[1].reasoning_content == "Hm."


async def test_a_response_says_what_was_used_and_what_was_asked(server: Live) -> None:
    more = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 100,
        "metadata": {"run": "7"},
        "store": True,
        "truncation": "auto",
        "parallel_tool_calls": False,
        "tools": [TOOL],
        "tool_choice": {"type": "function", "name": "add"},
        "text": {"verbosity": "low", "format": {"type": "text"}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "user": "me",
        "service_tier": "flex",
    }
    answer = await ask(server, **more | {"tool_choice": "none"})
    assert answer["id"].startswith("resp_") and answer["object"] == "response" and answer["status"] == "completed"
    assert said(answer) == "Paris is the capital of France."
    for name in ("instructions", "temperature", "top_p", "max_output_tokens", "metadata", "user", "service_tier"):
        assert answer[name] == more[name]
    assert (answer["store"], answer["truncation"], answer["parallel_tool_calls"]) == (False, "disabled", False)
    assert answer["tools"] == [TOOL | {"strict": None}]
    assert answer["reasoning"] == {"effort": "low", "summary": None}
    usage = answer["usage"]
    assert usage["output_tokens"] == len(said(answer)) and usage["input_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    again = (await ask(server, **more | {"tool_choice": "none"}))["usage"]
    assert 0 < again["input_tokens_details"]["cached_tokens"] < again["input_tokens"] == usage["input_tokens"]


async def test_an_answer_that_was_cut_off_is_incomplete(server: Live) -> None:
    answer = await ask(server, max_output_tokens=5)
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    (item,) = answer["output"]
    assert (item["status"], said(answer), answer["completed_at"]) == ("incomplete", "Paris", None)


async def test_tools_are_called_and_what_they_say_comes_back() -> None:
    seen: list[str] = []

    def script(prompt: str) -> str:
        seen.append(prompt)
        return "Three." if "tool\n" in prompt else f"<think>\nTwo numbers.\n</think>\n\nI add. {ADD}"

    async with live(script, tokenizer=Thinking()) as server:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", _strict_response_validation=True) as client:
            asked: list[Any] = [{"role": "user", "content": "Add"}]
            tools: list[Any] = [TOOL]
            first = await client.responses.create(model="org/scripted", input=asked, tools=tools)
            assert [item.type for item in first.output] == ["reasoning", "message", "function_call"]
            call: Any = first.output[-1]
            assert (call.name, json.loads(call.arguments)) == ("add", {"a": 1, "b": "é"})
            assert first.usage is not None and first.usage.output_tokens_details.reasoning_tokens > 0
            output = {"type": "function_call_output", "call_id": call.call_id, "output": "3"}
            history = [*asked, *(item.to_dict() for item in first.output), output]
            second = await client.responses.create(model="org/scripted", input=history, tools=tools)
    assert second.output_text == "Three."
    assert seen[1].endswith("user\nAddassistant\nI add.tool\n3assistant\n")


class Obedient(ScriptedEngine):
    """Says that it holds answers to their form, which its script has to see to."""

    def __init__(self, script: Any, info: EngineInfo, **more: Any) -> None:
        super().__init__(script, replace(info, obeys_formats=True), **more)


class City(BaseModel):
    city: str
    country: str


async def test_a_structured_answer_is_parsed_by_openais_client() -> None:
    async with live({"": '{"city": "Paris", "country": "France"}'}, engine_type=Obedient) as server:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            parsed = await client.responses.parse(model="org/scripted", input=HELLO, text_format=City)
            async with client.responses.stream(model="org/scripted", input=HELLO, text_format=City) as stream:
                streamed = await stream.get_final_response()
    assert parsed.output_parsed == streamed.output_parsed == City(city="Paris", country="France")


def test_the_form_of_a_text_is_that_of_a_chat() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "name": "x", "schema": schema, "strict": True, "description": "A."}
    assert chat_of(text={"format": form}).output_format() == JsonSchema.of(schema)
    loose = form | {"schema": LIMITED, "strict": None}
    assert isinstance(chat_of(text={"format": loose}).output_format(), JsonSchema)
    assert chat_of(text={"format": {"type": "text"}}).output_format() is None
    assert chat_of(text={"format": {"type": "json_object"}}).output_format() is not None


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", ["add", "other"]),
        ({"type": "function", "name": "other"}, ["other"]),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "add"}]}, ["add"]),
    ],
)
def test_a_choice_of_tools_is_held_to(choice: Any, names: list[str]) -> None:
    use = chat_of(tools=[TOOL, TOOL | {"name": "other"}], tool_choice=choice).tool_use("hermes")
    assert use is not None and isinstance(use.format, ToolCalls) and use.format.is_required
    assert [name for name, _ in use.format.tools] == names


@pytest.mark.parametrize("strict", [True, False, None])
def test_a_tool_is_strict_only_where_that_was_said(strict: bool | None) -> None:
    """OpenAI takes what is left out for true as far as the schema goes; here it is best effort."""
    tools = chat_of(tools=[TOOL | {"parameters": LIMITED, "strict": strict}], tool_choice="required").tools
    assert tools is not None and tools[0].function.strict is strict
    assert tools[0].function.parameters == LIMITED


async def test_what_only_a_chat_has_a_word_for_goes_through(server: Live) -> None:
    body = {"input": HELLO, "stop": [" capital"], "seed": 3, "top_k": 5, "mood": "cheerful", "n": 1}
    reply = await send(server, "POST", PATH, body | {"parrot": {"session": "s9", "function": "ask"}})
    answer = reply.json()
    assert said(answer) == "Paris is the" and answer["status"] == "completed"
    assert answer["parrot"]["session"] == "s9" and answer["parrot"]["hints"] == {
        "function": "applied",
        "mood": "ignored",
    }
    for session in server.manager.sessions():
        await session.close()


async def test_a_part_may_stand_for_the_text_of_another_call() -> None:
    seen: list[str] = []

    def script(prompt: str) -> str:
        seen.append(prompt)
        return "Paris."

    async with live(script) as server:
        await ask(server, parrot={"session": "s", "call": "first"})
        content = [text("Where is "), {"type": "parrot:ref", "call": "first", "transform": "strip"}]
        await ask(server, [{"role": "user", "content": content}], parrot={"session": "s"})
        missing = [text("x"), {"type": "parrot:ref", "call": "none"}]
        body = {"input": [USER, {"role": "user", "content": missing}], "parrot": {"session": "s"}}
        error = (await send(server, "POST", PATH, body)).error
    assert "Where is Paris." in seen[1]
    assert error["param"] == "input[1].content[1].call" and "input[1].content[1].call" in error["message"]


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"input": 5}, "input", "list"),
        ({"input": []}, "input", "at least 1"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "developer"),
        ({"input": [USER, {"role": "user", "content": 5}]}, "input[1].content", "list"),
        ({"input": [USER, {"role": "user", "content": []}]}, "input[1].content", "empty"),
        ({"input": [USER, {"role": "user", "content": [{"type": "input_text"}]}]}, "input[1].content[0].text", "needs"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 1}]}]}, "input[0].content[0].text", ""),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
            "input_image",
        ),
        ({"input": [{"role": "user", "content": [{"type": "song"}]}]}, "input[0].content[0].type", "song"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "send the item itself"),
        ({"input": [{"id": "msg_1"}]}, "input[0]", "send the item itself"),
        ({"input": [{}]}, "input[0].type", "missing"),
        ({"input": ["x"]}, "input[0]", ""),
        ({"input": [{"type": "computer_call", "id": "c"}]}, "input[0].type", "computer_call"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id", "required"),
        ({"input": [USER, SAID]}, "input[1].call_id", "send that item too"),
        ({"input": [CALLED, {**SAID, "output": [{"type": "input_file"}]}]}, "input[1].output[0].type", "input_file"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
        ({"tools": [TOOL, {"type": "mcp", "server_label": "x"}]}, "tools[1].type", "mcp"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing"),
        ({"tools": [TOOL | {"name": "a b"}]}, "tools[0].name", "pattern"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice", "no tool 'other'"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "add"}}},
            "tool_choice",
            "should be",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "file_search"}}, "tool_choice.type", "file_search"),
        ({"tool_choice": "required"}, "tool_choice", "tools"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "missing"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "missing"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "json_schema"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format", "cannot hold"),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater"),
        ({"max_output_tokens": 3, "min_tokens": 5}, "min_tokens", "the 3 of max_output_tokens"),
        ({"temperature": 3}, "temperature", "2"),
        ({"top_k": -5}, "top_k", "-1"),
        ({"metadata": {"a": 1}}, "metadata.a", "string"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the items"),
        ({"conversation": "conv_1"}, "conversation", "send the items"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "input"),
        ({"background": True}, "background", "stream"),
        ({"max_tokens": 5}, "max_tokens", "max_output_tokens"),
        ({"response_format": {"type": "text"}}, "response_format", "text.format"),
        ({"n": 2}, "n", "/v1/chat/completions"),
        ({"guided_json": {}}, "guided_json", "not supported"),
        ({"stream_options": {"include_obfuscation": False}, "stream": False}, "stream_options", "stream: true"),
        ({"truncation": "some"}, "truncation", "disabled"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_the_name_that_the_client_gave_it(
    server: Live, change: dict[str, Any], param: str, words: str
) -> None:
    for stream in (False, True):
        reply = await send(server, "POST", PATH, {"input": HELLO, "stream": stream} | change)
        assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
        assert reply.error["param"] == param and words in reply.error["message"], reply.error
        assert "messages[" not in reply.error["message"] and "response_format." not in reply.error["message"]


async def test_a_value_that_json_cannot_say_back_is_refused(server: Live) -> None:
    for number in ("1e999", "NaN"):
        body = '{"input": "x", "tools": [{"type": "function", "name": "f", "parameters": {"default": ' + number + "}}]}"
        error = (await send(server, "POST", PATH, body.encode())).error
        assert error["param"] == "tools"


async def test_a_prompt_that_is_too_long_is_refused_whatever_truncation_says(server: Live) -> None:
    reply = await send(server, "POST", PATH, {"input": "x" * 5000, "truncation": "auto", "stream": True})
    assert reply.status == 400 and reply.error["code"] == "context_length_exceeded"
    missing = await send(server, "POST", PATH, {"input": HELLO, "model": "none"})
    assert missing.status == 404 and missing.error["code"] == "model_not_found"


async def test_what_has_no_effect_is_named(server: Live) -> None:
    more = {
        "store": True,
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "truncation": "auto",
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low", "summary": "auto", "context": "auto"},
        "text": {"verbosity": "low"},
        "tools": [TOOL | {"defer_loading": False}],
        "top_logprobs": 2,
        "context_management": [{"type": "compaction"}],
        "max_tool_calls": 3,
    }
    thought = {"type": "reasoning", "summary": [], "encrypted_content": "x"}
    reply = await send(server, "POST", PATH, {"input": [thought, USER | {"mood": "odd"}]} | more)
    ignored = set(reply.headers["x-parrot-ignored"].split(", "))
    assert ignored == {
        *("store", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "truncation"),
        *("include.reasoning.encrypted_content", "reasoning.effort", "reasoning.summary", "reasoning.context"),
        *("text.verbosity", "tools[0].defer_loading", "top_logprobs", "context_management", "max_tool_calls"),
        *("input[0].encrypted_content", "input[1].mood"),
    }
    plain = await send(server, "POST", PATH, {"input": [USER], "store": False, "metadata": {"a": "b"}})
    assert plain.status == 200 and "x-parrot-ignored" not in plain.headers


async def test_keys_are_asked_for_as_everywhere() -> None:
    async with live(keys=["secret"]) as server:
        assert (await send(server, "POST", PATH, {"input": HELLO})).error["code"] == "invalid_api_key"
        headers = {"authorization": "Bearer secret", "x-parrot-session": "run"}
        reply = await send(server, "POST", PATH, {"input": HELLO}, headers)
        assert reply.status == 200 and reply.headers["x-parrot-session"] == "run"
        assert reply.headers["x-ratelimit-limit-requests"]
