"""What clients of other servers say in words of their own: it is understood, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from parrot_compat.core.output_format import JsonSchema
from parrot_compat.server.errors import ApiError
from parrot_compat.server.openai.chat_schema import ChatRequest, chat_prompt
from parrot_compat.server.openai.tools import MOST_TOOLS, Tool, tool_use

from .live import Live, send

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def chat(**said: Any) -> ChatRequest:
    return ChatRequest.model_validate(HELLO | said)


@pytest.mark.parametrize("field", ["grammar", "json_schema", "regex", "ebnf", "guided_json"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_form_asked_for_in_another_servers_words_is_not_dropped(server: Live, path: str, field: str) -> None:
    asked = HELLO if path == CHAT else {"prompt": "hello"}
    reply = await send(server, "POST", path, asked | {field: "a"})
    assert reply.status == 400 and reply.error["param"] == field
    nothing: list[Any] = [None] if field in ("json_schema", "guided_json") else [None, ""]
    for value in nothing:  # clients of llama.cpp send all its fields
        assert (await send(server, "POST", path, asked | {field: value})).status == 200


def test_a_seed_of_minus_one_is_none_and_other_seeds_below_zero_are_seeds() -> None:
    assert [chat(seed=-1).sampling(choice).seed for choice in range(3)] == [None] * 3
    seeds = [chat(seed=-2).sampling(choice).seed for choice in range(3)]
    assert None not in seeds and len(set(seeds)) == 3


def test_a_schema_may_stand_beside_its_type_as_llama_cpp_has_it() -> None:
    other = {"name": "x", "schema": {"type": "string"}, "strict": True}
    flat = chat(response_format={"type": "json_schema", "schema": SCHEMA})
    both = chat(response_format={"type": "json_schema", "schema": SCHEMA, "json_schema": other})
    assert flat.output_format() == JsonSchema.of(SCHEMA, strict=False) and flat.ignored() == []
    assert both.output_format() == JsonSchema.of({"type": "string"}) and both.ignored() == ["response_format.schema"]
    with pytest.raises(ApiError, match="json_schema"):
        chat(response_format={"type": "json_schema"}).output_format()


def messages_of(*said: dict[str, Any]) -> Any:
    asked = ChatRequest.model_validate({"messages": [HELLO["messages"][0], *said]})
    assert asked.ignored() == []
    return chat_prompt(asked.messages).messages[1:]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_past_thoughts_are_told_to_the_template_by_either_name(name: str) -> None:
    (said,) = messages_of({"role": "assistant", "content": "4", name: "2 and 2"})
    assert said.fields["reasoning_content"] == "2 and 2"


@pytest.mark.parametrize("arguments", [{}, {"arguments": None}, {"arguments": "{}"}])
def test_a_past_call_without_arguments_is_one_with_an_empty_object(arguments: dict[str, Any]) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "now", **arguments}}
    asked, told = messages_of(
        {"role": "assistant", "content": [], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": []},
    )
    assert asked.fields["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}
    assert [segment.text for segment in told.content] == [""]


def test_agents_may_bring_hundreds_of_tools() -> None:
    tools = [
        Tool.model_validate({"type": "function", "function": {"name": f"tool_{n}"}}) for n in range(MOST_TOOLS + 1)
    ]
    use = tool_use(tools[:300], "auto", True, "hermes")
    assert use is not None and len(use.functions) == 300
    with pytest.raises(ApiError, match=f"at most {MOST_TOOLS}"):
        tool_use(tools, "auto", True, "hermes")


@pytest.mark.parametrize(("parameters", "takes"), [({}, {}), (None, {"type": "object", "properties": {}})])
def test_a_tool_of_an_empty_schema_takes_any_object_and_one_of_none_takes_none(parameters: Any, takes: Any) -> None:
    tool = Tool.model_validate({"type": "function", "function": {"name": "f", "parameters": parameters}})
    use = tool_use([tool], "required", True, "hermes")
    assert use is not None and use.format is not None
    ((_, schema),) = use.format.tools
    assert JsonSchema.of(takes).schema == schema


def test_arguments_of_another_kind_are_still_refused() -> None:
    with pytest.raises(ValidationError, match="arguments"):
        call = {"function": {"name": "f", "arguments": 5}}
        ChatRequest.model_validate({"messages": [{"role": "assistant", "tool_calls": [call]}]})
