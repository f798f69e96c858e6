"""Calls whose arguments are plain text are held to their schemas, and read as what they were held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from parrot_compat.core.call import Reading
from parrot_compat.core.errors import BadSchema
from parrot_compat.core.output_format import AnyJson, ToolCalls
from parrot_compat.core.prompt import Text
from parrot_compat.core.reading import Reader
from parrot_compat.core.tool_calls import ToolReader
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer

from .test_grammar import PERSON, drawn_with, takes, vocabulary_of

if TYPE_CHECKING:
    from parrot_compat.gpu.forms.grammar import Grammars

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

COLOR = {"enum": ["red", "gr\neen\n", "a</parameter>b"]}
MANY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "color": {"$ref": "#/$defs/Color"},
        "other": {"anyOf": [{"$ref": "#/$defs/Color"}, {"type": "null"}]},
        "count": {"type": "integer", "minimum": 3},
        "nested": {"type": "object", "properties": {"color": {"$ref": "#/$defs/Color"}}, "required": ["color"]},
        "short": {"type": "string", "minLength": 2, "maxLength": 4},
        "mixed": {"enum": [1, "1", "one", None, "null"]},
        "free": {},
    },
    "required": ["count", "unlisted"],
    "$defs": {"Color": COLOR},
}
TOOLS: list[tuple[str, dict[str, Any]]] = [
    ("add", PERSON),
    ("now.utc", {"type": "object", "properties": {}}),
    ("many", MANY),
    ("any", {"type": "object", "additionalProperties": {"type": "number"}}),
]


@pytest.fixture(scope="module")
def _vocabulary(tmp_path_factory: pytest.TempPathFactory) -> tuple[HuggingFaceTokenizer, Grammars]:
    return vocabulary_of("qwen25", tmp_path_factory.mktemp("vocabulary") / "m")


@pytest.fixture(scope="module")
def tokenizer(_vocabulary: tuple[HuggingFaceTokenizer, Grammars]) -> HuggingFaceTokenizer:
    return _vocabulary[0]


@pytest.fixture(scope="module")
def grammars(_vocabulary: tuple[HuggingFaceTokenizer, Grammars]) -> Grammars:
    return _vocabulary[1]


@pytest.mark.parametrize("vocabulary", ["qwen25", "llama3"])  # whose marks are tokens, text
@pytest.mark.parametrize("is_parallel", [True, False])
@pytest.mark.parametrize("is_required", [True, False])
def test_calls_are_read_as_they_were_held(
    tmp_path: Path, vocabulary: str, is_parallel: bool, is_required: bool
) -> None:
    tokenizer, grammars = vocabulary_of(vocabulary, tmp_path / "m")
    form = ToolCalls.of(TOOLS, "qwen3_coder", is_parallel, is_required=is_required)
    grammars.check(form)
    names = set()
    # where none is required text is free, and behind a mark a call is held; that of the call itself is one, too
    begins = [""] if is_required else ["I add <b>: <tool_call>", "<function="]
    for seed in range(8):
        begins_with = begins[seed % len(begins)]
        begun = list(tokenizer.encode(Text(begins_with))) if begins_with else []
        tokens = [*begun, *drawn_with(grammars, form, 150, seed, begun)]
        stream = tokenizer.text_stream((), Reader(Reading(tools="qwen3_coder")).marks)
        reader = ToolReader("qwen3_coder", is_parallel, schemas=dict(TOOLS))
        said = "".join(reader.push(stream.push([token]))[0] for token in tokens) + reader.end()[0]
        assert reader.calls and not reader.is_cut and (said == "" or not is_required)
        for call in reader.calls:
            jsonschema.validate(json.loads(call.arguments), dict(TOOLS)[call.name])
            names.add(call.name)
    assert len(names) > 2


WORDS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
EDIT = {"type": "object", "properties": {"old": {"type": "string"}, "new": {"type": "string"}}, "required": ["old"]}


@pytest.mark.parametrize("schema", [WORDS, EDIT, {"type": "array", "items": EDIT, "minItems": 1}])
def test_answers_with_texts_inside_json_are_closed_in_time(
    tokenizer: HuggingFaceTokenizer, grammars: Grammars, schema: dict[str, Any]
) -> None:
    arguments = {"type": "object", "properties": {"p": schema}, "required": ["p"]}
    form = ToolCalls.of([("f", arguments)], "qwen3_coder", is_parallel=False)
    grammars.check(form)
    for seed in range(3):
        text = tokenizer.decode(drawn_with(grammars, form, 90, seed), skip_special_tokens=False)
        reader = ToolReader("qwen3_coder", schemas={"f": arguments})
        reader.push(text)
        reader.end()
        jsonschema.validate(json.loads(reader.calls[0].arguments), arguments)


BESIDE: dict[str, Any] = {"properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}}, "required": ["b"]}
SELF: dict[str, Any] = {"properties": {"a": {"type": "array", "items": {"$ref": "#"}}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "body", "is_taken"),
    [
        (BESIDE, {"b": "5"}, True),
        (BESIDE, {"b": '"five"'}, False),
        (SELF, {"a": "[]"}, True),
        (SELF, {"a": '[{"a": [{"a": []}]}]'}, True),
        (SELF, {"a": "[[]]"}, False),
        (SELF, {"a": "[{}]"}, False),
    ],
)
def test_references_lead_where_they_led_in_the_arguments_schema(
    tokenizer: HuggingFaceTokenizer, grammars: Grammars, schema: dict[str, Any], body: dict[str, str], is_taken: bool
) -> None:
    form = ToolCalls.of([("f", {"type": "object", **schema})], "qwen3_coder", is_parallel=False)
    text = shown("".join(value(name, said) for name, said in body.items()))
    assert takes(grammars, tokenizer, form, text) is is_taken


def shown(body: str, name: str = "f") -> str:
    return f"<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>"


def value(name: str, text: str) -> str:
    return f"<parameter={name}>\n{text}\n</parameter>\n"


OBJECT = {"type": "object"}
LISTED: dict[str, Any] = {"properties": {"b": {}, "a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "body", "is_taken"),
    [
        (LISTED, value("a", "5"), True),
        (LISTED, value("a", "5") + value("b", "\n a </b> é\n"), True),
        (LISTED, value("b", "x") + value("a", "5"), False),  # those that are required come first
        (LISTED, value("b", "x"), False),
        (LISTED, value("a", "5") + value("c", "x"), False),
        (LISTED, value("a", "five"), False),
        (LISTED, value("a", "5\n"), False),
        (LISTED, value("a", "5") + "<parameter=b>\nx</parameter>\n", False),
        (LISTED, value("a", "5") + value("b", "</function>\n"), True),
        (LISTED, value("a", "5") + value("b", "</function>\n</tool_call>\n"), False),
        (OBJECT, value("anything", "5") + value("else", "x"), True),
        ({}, "", True),
        (OBJECT | {"additionalProperties": False}, value("a", "5"), False),
        (OBJECT | {"additionalProperties": {"type": "boolean"}}, value("a", "true"), True),
        (OBJECT | {"additionalProperties": {"type": "boolean"}}, value("a", "yes"), False),
        (MANY, value("count", "3") + value("unlisted", "x") + value("note", "null"), True),
        (MANY, value("count", "2"), False),
        (MANY, value("count", "3") + value("unlisted", "x") + value("color", "gr\neen\n"), True),
        (MANY, value("count", "3") + value("unlisted", "x") + value("color", "blue"), False),
        (MANY, value("count", "3") + value("unlisted", "x") + value("other", "null"), True),
        (MANY, value("count", "3") + value("unlisted", "x") + value("nested", '{"color": "red"}'), True),
        (MANY, value("count", "3") + value("unlisted", "x") + value("nested", '{"color": "blue"}'), False),
        (MANY, value("count", "3") + value("unlisted", "x") + value("short", "abcd"), True),
        (MANY, value("count", "3") + value("unlisted", "x") + value("short", "abcde"), False),
        (MANY, value("count", "3") + value("unlisted", "x") + value("short", "a"), False),
        (MANY, value("count", "3") + value("unlisted", "x") + value("mixed", "one"), True),
    ],
)
def test_what_is_written_is_what_the_schema_takes(
    tokenizer: HuggingFaceTokenizer, grammars: Grammars, schema: dict[str, Any], body: str, is_taken: bool
) -> None:
    form = ToolCalls.of([("f", schema)], "qwen3_coder", True)
    assert takes(grammars, tokenizer, form, shown(body)) == is_taken


def test_an_answer_is_calls_or_json(tokenizer: HuggingFaceTokenizer, grammars: Grammars) -> None:
    form = ToolCalls.of([("f", LISTED)], "qwen3_coder", True, is_required=False, answer=AnyJson())
    for text, is_taken in ((shown(value("a", "5")), True), ('{"a": "<function="}', True), ("I add.", False)):
        assert takes(grammars, tokenizer, form, text) == is_taken


def test_calls_come_to_an_end_within_their_tokens(tokenizer: HuggingFaceTokenizer, grammars: Grammars) -> None:
    form = ToolCalls.of([("add", PERSON)], "qwen3_coder", True)
    shortest = shown(value("name", "x") + value("age", "0") + value("tags", '["a"]'), "add")
    for seed in range(4):
        reader = ToolReader("qwen3_coder", schemas={"add": PERSON})
        tokens = drawn_with(grammars, form, len(tokenizer.encode(Text(shortest))) + 8, seed)
        reader.push(tokenizer.decode(tokens))
        assert not reader.is_cut
        jsonschema.validate(json.loads(reader.calls[0].arguments), PERSON)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"properties": {"a": {"type": "string", "pattern": "^a+$"}}}, "pattern"),
        ({"properties": {"a": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}}}, "format"),
        ({"properties": {"a": {"type": "string", "maxLength": 1000}}}, "maxLength"),
        ({"properties": {"a": {"type": ["string", "array"]}}}, "a text or JSON"),
        ({"properties": {"a": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}}}, "uniqueItems"),
        ({"properties": {"a": {}}, "minProperties": 1}, "minProperties"),
    ],
)
def test_what_no_text_can_be_held_to_is_refused_for_a_strict_tool_and_passed_over_for_others(
    grammars: Grammars, schema: dict[str, Any], named: str
) -> None:
    grammars.check(ToolCalls.of([("f", schema)], "qwen3_coder", True))
    with pytest.raises(BadSchema, match=named):
        grammars.check(ToolCalls.of([("f", schema)], "qwen3_coder", True, is_required=False, strict=["f"]))


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a>b": {}}, "required": ["a>b"]},
        {"properties": {"a": {"enum": ["</parameter>"]}}},
    ],
)
def test_what_cannot_be_written_between_tags_is_refused(grammars: Grammars, schema: dict[str, Any]) -> None:
    with pytest.raises(BadSchema, match="f"):
        grammars.check(ToolCalls.of([("f", schema)], "qwen3_coder", True))
