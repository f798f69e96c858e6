"""Tools and structured output, on a server that has them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from parrot_compat.integrations.langchain import ChatParrot

from ..other_server import OtherServer, Reply, chunk, completion


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int = Field(description="years")


class Part(BaseModel):
    """Of something that is made of parts."""

    name: str = Field(description="what it is called")
    parts: list[Part] = []


class Machine(BaseModel):
    """Something that is made of parts."""

    owner: Person | None = None
    main: Part


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@tool
def build(part: Part, count: int) -> str:
    """Builds."""
    return part.name * count


def tool_call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_offering_a_tool_that_contains_itself_leaves_the_tool_as_it_was(other: OtherServer) -> None:
    def told() -> dict[str, Any]:
        return build.tool_call_schema.model_json_schema()  # type: ignore[union-attr]

    before = copy.deepcopy(told())
    ChatParrot(base_url=other.url).bind_tools([build]).invoke("make one")
    assert told() == before


def test_tools_are_sent_and_calls_come_back_parsed(other: OtherServer) -> None:
    calls = [tool_call("add", '{"a": 1, "b": 2}')]
    other.answer = lambda request: Reply(completion(None, finish="tool_calls", tool_calls=calls))
    answer = ChatParrot(base_url=other.url).bind_tools([add]).invoke("1 + 2")
    assert other.last.body["tools"][0]["function"]["name"] == "add"
    assert "tool_choice" not in other.last.body
    assert answer.tool_calls == [{"name": "add", "args": {"a": 1, "b": 2}, "id": "call_1", "type": "tool_call"}]
    assert answer.text == ""


def test_a_call_that_cannot_be_parsed_is_kept_as_it_is(other: OtherServer) -> None:
    calls = [tool_call("add", '{"a": 1, '), tool_call("add", '{"a": 1}')]
    other.answer = lambda request: Reply(completion(None, finish="length", tool_calls=calls))
    answer = ChatParrot(base_url=other.url).bind_tools([add]).invoke("1 + 2")
    assert [call["args"] for call in answer.invalid_tool_calls] == ['{"a": 1, ']
    assert [call["args"] for call in answer.tool_calls] == [{"a": 1}]


def test_a_call_in_pieces_is_put_together(other: OtherServer) -> None:
    def piece(text: str, **more: Any) -> dict[str, Any]:
        return chunk(
            tool_calls=[{"index": 0, "function": {"arguments": text, **more}, **({"id": "c"} if more else {})}]
        )

    pieces = [piece("", name="add"), piece('{"a": 1,'), piece(' "b": 2}'), chunk("tool_calls")]
    other.answer = lambda request: Reply(events=iter(pieces))
    parts = list(ChatParrot(base_url=other.url).bind_tools([add]).stream("1 + 2"))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert total.tool_calls == [{"name": "add", "args": {"a": 1, "b": 2}, "id": "c", "type": "tool_call"}]


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        ("any", "required"),
        (True, "required"),
        ("auto", "auto"),
        ("none", "none"),
        ("add", {"type": "function", "function": {"name": "add"}}),
        (False, None),
    ],
)
def test_how_a_tool_is_chosen(other: OtherServer, choice: Any, wire: Any) -> None:
    ChatParrot(base_url=other.url).bind_tools([add], tool_choice=choice).invoke("hi")
    assert other.last.body.get("tool_choice") == wire


@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()])
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_json_comes_back_as_the_schema_says(other: OtherServer, schema: Any, method: Any) -> None:
    other.answer = lambda request: Reply(completion('{"name": "Ada", "age": 36}'))
    person = ChatParrot(base_url=other.url).with_structured_output(schema, method=method).invoke("who?")
    assert person == (Person(name="Ada", age=36) if schema is Person else {"name": "Ada", "age": 36})
    form = other.last.body["response_format"]
    if method == "json_mode":
        assert form == {"type": "json_object"}
    else:
        assert form["type"] == "json_schema" and form["json_schema"]["name"] == "Person"
        assert set(form["json_schema"]["schema"]["properties"]) == {"name", "age"}
    assert "ls_structured_output_format" not in other.last.body


@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()])
def test_a_forced_tool_call_gives_the_schema_too(other: OtherServer, schema: Any) -> None:
    calls = [tool_call("Person", '{"name": "Ada", "age": 36}')]
    other.answer = lambda request: Reply(completion(None, finish="tool_calls", tool_calls=calls))
    person = ChatParrot(base_url=other.url).with_structured_output(schema, method="function_calling").invoke("who?")
    assert (person if isinstance(person, dict) else person.model_dump()) == {"name": "Ada", "age": 36}
    assert other.last.body["tool_choice"] == {"type": "function", "function": {"name": "Person"}}
    assert other.last.body["parallel_tool_calls"] is False


def test_strict_is_sent_where_it_is_asked_for(other: OtherServer) -> None:
    other.answer = lambda request: Reply(completion('{"name": "Ada", "age": 36}'))
    ChatParrot(base_url=other.url).with_structured_output(Person, strict=True).invoke("who?")
    described = other.last.body["response_format"]["json_schema"]
    assert described["strict"] is True and described["schema"]["additionalProperties"] is False


AS_OPENAI_TAKES_IT: dict[str, dict[str, Any]] = {
    "a json_schema": {"name": "Person", "schema": Person.model_json_schema(), "strict": True},
    "a response_format": {
        "type": "json_schema",
        "json_schema": {"name": "Person", "schema": Person.model_json_schema(), "strict": True},
    },
    "a function": {"name": "Person", "parameters": Person.model_json_schema(), "strict": True},
}


@pytest.mark.parametrize("schema", AS_OPENAI_TAKES_IT.values(), ids=AS_OPENAI_TAKES_IT)
def test_a_schema_is_taken_in_all_of_openais_forms(other: OtherServer, schema: dict[str, Any]) -> None:
    other.answer = lambda request: Reply(completion('{"name": "Ada", "age": 36}'))
    llm = ChatParrot(base_url=other.url)
    assert llm.with_structured_output(schema).invoke("who?") == {"name": "Ada", "age": 36}
    described = other.last.body["response_format"]["json_schema"]
    assert (described["name"], described["strict"]) == ("Person", True)
    assert set(described["schema"]["properties"]) == {"name", "age"}
    with pytest.raises(ValueError, match="strict"):
        llm.with_structured_output(schema, strict=False)
    calls = [tool_call("Person", '{"name": "Ada", "age": 36}')]
    other.answer = lambda request: Reply(completion(None, finish="tool_calls", tool_calls=calls))
    assert llm.with_structured_output(schema, method="function_calling").invoke("who?") == {"name": "Ada", "age": 36}
    assert set(other.last.body["tools"][0]["function"]["parameters"]["properties"]) == {"name", "age"}


@pytest.mark.parametrize(
    "bound",
    [
        lambda llm: llm.bind(response_format=Person),
        lambda llm: llm.bind_tools([add], response_format=Person),
        lambda llm: llm.bind(response_format=Person.model_json_schema()),
        lambda llm: llm.bind(response_format={"name": "Person", "schema": Person.model_json_schema()}),
        lambda llm: llm.model_copy(update={"model_kwargs": {"response_format": Person}}),
    ],
)
def test_a_class_or_a_schema_is_a_response_format_wherever_it_is_given(other: OtherServer, bound: Any) -> None:
    bound(ChatParrot(base_url=other.url)).invoke("who?")
    form = other.last.body["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["name"] == "Person"
    assert set(form["json_schema"]["schema"]["properties"]) == {"name", "age"}


@pytest.mark.parametrize("form", [{"type": "json_object"}, {"type": "text"}, {"type": "grammar", "value": "x"}])
def test_another_response_format_is_sent_as_it_is(other: OtherServer, form: dict[str, Any]) -> None:
    ChatParrot(base_url=other.url).bind(response_format=form).invoke("who?")
    assert other.last.body["response_format"] == form


@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
def test_tools_can_be_offered_beside_a_schema(other: OtherServer, method: Any) -> None:
    ChatParrot(base_url=other.url).with_structured_output(Person, method=method, include_raw=True, tools=[add]).invoke(
        "who?"
    )
    names = [offered["function"]["name"] for offered in other.last.body["tools"]]
    assert names == (["Person", "add"] if method == "function_calling" else ["add"])


@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()])
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_where_the_model_calls_another_tool_there_is_no_object_and_no_error(
    other: OtherServer, schema: Any, method: Any
) -> None:
    calls = [tool_call("add", '{"a": 1, "b": 2}')]
    other.answer = lambda request: Reply(completion(None, finish="tool_calls", tool_calls=calls))
    llm = ChatParrot(base_url=other.url)
    assert llm.with_structured_output(schema, method=method, tools=[add]).invoke("1 + 2") is None
    told: Any = llm.with_structured_output(schema, method=method, tools=[add], include_raw=True).invoke("1 + 2")
    assert told["raw"].tool_calls and told["parsed"] is None and told["parsing_error"] is None


CUT = '{"name": "Ada", "age": 3'


@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()])
@pytest.mark.parametrize("streaming", [True, False])
def test_a_call_that_was_cut_off_is_no_object(other: OtherServer, schema: Any, streaming: bool) -> None:
    name = schema.__name__ if isinstance(schema, type) else schema["title"]
    call = tool_call(name, CUT)
    events = [chunk(tool_calls=[{"index": 0, **call}]), chunk(finish="length")]
    other.answer = lambda request: (
        Reply(events=iter(events)) if streaming else Reply(completion(None, finish="length", tool_calls=[call]))
    )
    llm = ChatParrot(base_url=other.url, streaming=streaming)
    with pytest.raises(OutputParserException, match="cut off"):
        llm.with_structured_output(schema, method="function_calling").invoke("who?")


@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()])
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize("said", [CUT, '{"name": "Ad', '{"name": "Ada ```1``` ', f"```json\n{CUT}\n```"])
def test_an_answer_that_was_cut_off_is_no_object(other: OtherServer, schema: Any, method: Any, said: str) -> None:
    other.answer = lambda request: Reply(completion(said, finish="length"))
    llm = ChatParrot(base_url=other.url)
    with pytest.raises(OutputParserException, match="Ad"):
        llm.with_structured_output(schema, method=method).invoke("who?")
    told: Any = llm.with_structured_output(schema, method=method, include_raw=True).invoke("who?")
    assert told["raw"].text == said and told["parsed"] is None
    assert isinstance(told["parsing_error"], OutputParserException)


@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()])
def test_json_in_a_fence_is_read_as_well(other: OtherServer, schema: Any) -> None:
    other.answer = lambda request: Reply(completion('Here:\n```json\n{"name": "```", "age": 36}\n```\nThat is all.'))
    person: Any = ChatParrot(base_url=other.url).with_structured_output(schema, method="json_mode").invoke("who?")
    assert (person if isinstance(person, dict) else person.model_dump()) == {"name": "```", "age": 36}


@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()])
def test_a_streamed_object_is_there_as_far_as_it_has_come(other: OtherServer, schema: Any) -> None:
    pieces = ('{"name": "Ada', '", "age": 3', "6}")
    other.answer = lambda request: Reply(events=iter([*(chunk(content=piece) for piece in pieces), chunk("stop")]))
    found: list[Any] = list(ChatParrot(base_url=other.url).with_structured_output(schema).stream("who?"))
    assert [one if isinstance(one, dict) else one.model_dump() for one in found][-2:] == [
        {"name": "Ada", "age": 3},
        {"name": "Ada", "age": 36},
    ]


def test_text_that_does_not_fit_the_schema_is_an_error_or_is_told(other: OtherServer) -> None:
    other.answer = lambda request: Reply(completion('{"name": "Ada"}'))
    llm = ChatParrot(base_url=other.url)
    with pytest.raises(OutputParserException):
        llm.with_structured_output(Person).invoke("who?")
    told: Any = llm.with_structured_output(Person, include_raw=True).invoke("who?")
    assert isinstance(told["raw"], AIMessage) and json.loads(told["raw"].text) == {"name": "Ada"}
    assert told["parsed"] is None and isinstance(told["parsing_error"], OutputParserException)


@pytest.mark.parametrize(("schema", "method"), [(None, "json_schema"), (None, "function_calling"), (Person, "yaml")])
def test_a_request_that_makes_no_sense_is_refused_before_it_is_sent(schema: Any, method: Any) -> None:
    with pytest.raises(ValueError, match=method):
        ChatParrot().with_structured_output(schema, method=method)


def test_reasoning_and_refusals_are_not_lost(other: OtherServer) -> None:
    other.answer = lambda request: Reply(completion("42", reasoning_content="because", refusal="partly"))
    answer = ChatParrot(base_url=other.url).invoke("why?")
    assert answer.additional_kwargs == {"reasoning_content": "because", "refusal": "partly"}
    assert answer.text == "42"


def defined(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref")
    return schema if name is None else root["$defs"][name.removeprefix("#/$defs/")]


def parts_of(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    return defined(schema["properties"]["parts"]["items"], root)


@pytest.mark.parametrize("strict", [None, True])
@pytest.mark.parametrize(
    ("asks", "member"),
    [
        (lambda llm, strict: llm.with_structured_output(Part, strict=strict), None),
        (lambda llm, strict: llm.with_structured_output(Machine, strict=strict), "main"),
        (lambda llm, strict: llm.with_structured_output(Part, strict=strict, method="function_calling"), None),
        (lambda llm, strict: llm.with_structured_output(Machine, strict=strict, method="function_calling"), "main"),
        (lambda llm, strict: llm.bind_tools([Part], strict=strict), None),
        (lambda llm, strict: llm.bind_tools([Machine], strict=strict), "main"),
        (lambda llm, strict: llm.bind_tools([build], strict=strict), "part"),
        (lambda llm, strict: llm.bind_tools([add], strict=strict, response_format=Part), None),
    ],
)
def test_of_a_class_that_contains_itself_the_third_level_is_described_as_the_first(
    other: OtherServer, asks: Any, member: str | None, strict: bool | None
) -> None:
    said = '{"name": "a", "parts": [{"name": "b"}]}'
    said = f'{{"main": {said}}}' if member == "main" else said
    call = tool_call("Machine" if member else "Part", said)
    other.answer = lambda request: Reply(completion(said, tool_calls=[call] if request.body.get("tools") else None))
    asks(ChatParrot(base_url=other.url), strict).invoke("what is it?")
    body = other.last.body
    form = body["response_format"]["json_schema"] if "response_format" in body else body["tools"][0]["function"]
    described = form.get("description")
    root = form["schema"] if "schema" in form else form["parameters"]
    assert root["type"] == "object" and form.get("strict") == strict
    assert described == ("Builds." if member == "part" else (Machine if member else Part).__doc__)
    first = defined(root["properties"][member], root) if member else root
    second = parts_of(first, root)
    third = parts_of(second, root)
    assert first["properties"]["name"]["description"] == "what it is called"
    for name in ("properties", "required", "additionalProperties", "type"):
        assert first.get(name) == second.get(name) == third.get(name)
    assert third.get("additionalProperties") is (False if strict else None)


def test_a_class_that_contains_itself_comes_back_at_every_level(other: OtherServer) -> None:
    other.answer = lambda request: Reply(completion('{"main": {"name": "a", "parts": [{"name": "b", "parts": []}]}}'))
    machine = ChatParrot(base_url=other.url).with_structured_output(Machine).invoke("what is it?")
    assert machine == Machine(main=Part(name="a", parts=[Part(name="b")]))
