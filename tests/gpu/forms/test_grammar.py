"""Answers held to forms: always valid, whole within their tokens, whatever the weights say."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.core.call import Reading
from parrot_compat.core.errors import BadSchema
from parrot_compat.core.output_format import (
    AnyJson,
    Choice,
    Grammar,
    JsonSchema,
    OutputFormat,
    Regex,
    ToolCalls,
    ToolStyle,
)
from parrot_compat.core.prompt import Text
from parrot_compat.core.reading import Reader
from parrot_compat.core.tool_calls import ToolReader
from parrot_compat.gpu.models.weights import locate
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from tests.gpu.vocabularies import save_vocabulary

if TYPE_CHECKING:
    from parrot_compat.gpu.forms.grammar import Grammars

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
NESTED = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"v": {"type": "number"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["v", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.fixture(scope="module")
def tokenizer() -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(locate("builtin:tiny"))


@pytest.fixture(scope="module")
def grammars(tokenizer: HuggingFaceTokenizer) -> Grammars:
    from parrot_compat.gpu.forms.grammar import Grammars

    return Grammars(tokenizer._hf.backend_tokenizer.to_str(), tokenizer.vocabulary, (2, 0))


_shared: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _for_hypothesis(tokenizer: HuggingFaceTokenizer, grammars: Grammars) -> None:
    _shared.update(tokenizer=tokenizer, grammars=grammars)


def drawn_at_random(format: OutputFormat, most: int, seed: int) -> tuple[str, bool]:
    """What a model without any sense says in this form, and whether nothing could follow."""
    form, draw, tokens = _shared["grammars"].form(format), np.random.default_rng(seed), []
    for left in range(most - 1, -1, -1):
        token = int(draw.choice(np.flatnonzero(np.unpackbits(form.allowed(may_end=True), bitorder="little"))))
        tokens.append(form.take(token, left))
        if form.is_complete:
            break
    return _shared["tokenizer"].decode(tokens), form.is_complete


@pytest.mark.parametrize("schema", [PERSON, NESTED, {"type": "object"}])
@pytest.mark.parametrize("most", [32, 100, 300])
def test_json_is_valid_and_whole_within_its_tokens(schema: dict[str, Any], most: int) -> None:
    for seed in range(8):
        text, is_complete = drawn_at_random(JsonSchema.of(schema), most, seed)
        jsonschema.validate(json.loads(text), schema)
        assert is_complete


WEARING = {
    "type": "object",
    "properties": {"e": {"type": "string", "pattern": "^(?:[a-z ]{0,20}[a-e]){0,8}[a-z ]{0,20}$"}},
    "required": ["e"],
    "additionalProperties": False,
}
"""Its answers share a limit of the library's, which a few of them use up."""


def test_a_form_does_not_wear_out(tokenizer: HuggingFaceTokenizer, grammars: Grammars) -> None:
    draw, letters = np.random.default_rng(5), list("fghij klmnop qrst uvwxyz")
    for _ in range(10):
        words = ["".join(draw.choice(letters, int(draw.integers(3, 20)))) for _ in range(8)]
        said = "".join(word + "abcde"[draw.integers(5)] for word in words)
        form, taken = grammars.form(JsonSchema.of(WEARING)), []
        for token in tokenizer.encode(Text(json.dumps({"e": said}))):
            assert np.unpackbits(form.allowed(may_end=True), bitorder="little")[token], tokenizer.decode(taken)
            taken.append(form.take(token, 4000))
        assert json.loads(tokenizer.decode(taken)) == {"e": said}


def test_a_limit_that_a_search_meets_ends_no_answer(tokenizer: HuggingFaceTokenizer, grammars: Grammars) -> None:
    nested = "^x(?:(?:[a-z ]{0,20}[a-e]){0,20}[a-z]{0,20}){0,20}$"
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "x": {"anyOf": [{"type": "string", "pattern": nested}, {"type": "integer"}]},
        },
        "additionalProperties": False,
    }
    for left in (4000, 60, 60):
        form, taken = grammars.form(JsonSchema.of(schema)), []
        for token in tokenizer.encode(Text('{"x": 5}')):
            allowed = np.unpackbits(form.allowed(may_end=True), bitorder="little")
            assert allowed[token], tokenizer.decode(taken)
            left -= 1
            taken.append(form.take(token, left))
        # where few tokens are left, the way to the end that is known may be another's
        assert tokenizer.decode(taken) in ('{"x": 5}', '{"n": 5}')


def test_any_json_is_an_object() -> None:
    assert all(isinstance(json.loads(drawn_at_random(AnyJson(), 24, seed)[0]), dict) for seed in range(8))


def test_a_text_matches_its_regex_also_where_it_is_cut() -> None:
    for seed in range(8):
        assert re.fullmatch(r"[0-9]{3}-[a-z]+!", drawn_at_random(Regex("[0-9]{3}-[a-z]+!"), 12, seed)[0])


def test_a_choice_is_one_of_the_texts() -> None:
    texts = ("yes", "no", 'may"be\n')
    assert {drawn_at_random(Choice(texts), 20, seed)[0] for seed in range(40)} == set(texts)


@pytest.mark.parametrize("text", ['start: "(" start ")" | "x"', 'root ::= "(" root ")" | "x"'])
def test_a_grammar_holds_in_both_notations(text: str) -> None:
    for seed in range(8):
        said = drawn_at_random(Grammar(text), 15, seed)[0]
        assert re.fullmatch(r"\(*x\)*", said) and said.count("(") == said.count(")")


def test_required_calls_have_arguments_that_are_valid() -> None:
    calls = ToolCalls.of([("add", PERSON), ("now", {"type": "object", "properties": {}})], "hermes", True)
    names = set()
    for seed in range(12):
        text, _ = drawn_at_random(calls, 120, seed)
        found = re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.DOTALL)
        assert found and "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in found) == text
        for call in map(json.loads, found):
            names.add(call["name"])
            jsonschema.validate(call["arguments"], PERSON if call["name"] == "add" else {"maxProperties": 0})
    assert names == {"add", "now"}


LEAVES = st.sampled_from(
    [{"type": "integer"}, {"type": "string", "maxLength": 12}, {"type": "boolean"}, {"enum": ["é", 1, None]}]
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda item, least: {"type": "array", "items": item, "minItems": least}, inner, st.integers(0, 2)),
        st.dictionaries(st.sampled_from(["a", "b c", 'd"', "é"]), inner, min_size=1, max_size=3).map(
            lambda members: {
                "type": "object",
                "properties": members,
                "required": sorted(members)[:1],
                "additionalProperties": False,
            }
        ),
        st.lists(inner, min_size=1, max_size=2).map(lambda branches: {"anyOf": branches}),
    ),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None)
@given(schema=SCHEMAS, most=st.integers(96, 160), seed=st.integers(0, 2**31))
def test_random_schemas_hold_at_random_weights(schema: dict[str, Any], most: int, seed: int) -> None:
    _shared["grammars"].check(JsonSchema.of(schema))
    jsonschema.validate(json.loads(drawn_at_random(JsonSchema.of(schema), most, seed)[0]), schema)


@pytest.mark.parametrize(
    "format",
    [
        JsonSchema('{"type":"nope"}'),
        JsonSchema('{"$ref":"#"}'),
        JsonSchema('{"$ref":"#/nowhere"}'),
        JsonSchema('{"not":{}}'),
        JsonSchema("false"),
        JsonSchema("[1]"),
        JsonSchema('{"type":"string","minLength":10000000}'),
        JsonSchema('{"type":"string","pattern":"^(a{1000}){1000}$"}'),
        Regex("(a{1000}){1000}"),
        Regex("("),
        Regex("(?=a)b"),
        Regex("\ud800"),
        Regex("a" * 100_000),
        Choice(()),
        Choice(("",)),
        Grammar("start: nowhere"),
        Grammar("root ::= ("),
        Grammar("root ::= r\n" + 'r ::= "x"\n' * 1000),
        ToolCalls((), "hermes"),
        Regex("(x{ 3000 }){ 3000 }"),
        Grammar("start: A\nA: B{3000}\nB: C{3000}\nC: /x/"),
        Grammar("\n".join(["start: r0", *(f"r{at}: r{at + 1}" for at in range(3000)), 'r3000: "x"'])),
    ],
    ids=lambda format: repr(format)[:40],
)
def test_what_cannot_be_held_to_is_refused_before_anything_runs(format: OutputFormat) -> None:
    with pytest.raises(BadSchema):
        _shared["grammars"].check(format)


def test_repetitions_side_by_side_are_no_bomb() -> None:
    _shared["grammars"].check(Regex("([0-9a-f]{4}:){7}[0-9a-f]{4}"))


def test_what_is_not_strict_passes_over_what_it_cannot_hold_to() -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    _shared["grammars"].check(JsonSchema.of(schema, strict=False))
    with pytest.raises(BadSchema, match="uniqueItems"):
        _shared["grammars"].check(JsonSchema.of(schema))


def test_a_format_that_is_asked_for_again_is_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    closings, searched = _shared["grammars"]._closings, []
    find = type(closings).find
    monkeypatch.setattr(type(closings), "find", lambda *asked: searched.append(1) or find(*asked))
    good, bad = Regex("[x-z]{7}"), Regex("[x-z]{7}[^\\s\\S]")
    for _ in range(3):
        _shared["grammars"].check(good)
        with pytest.raises(BadSchema, match="no answer"):
            _shared["grammars"].check(bad)
    assert len(searched) == 2


def test_the_searches_of_an_answer_look_at_a_bounded_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    closings, looked_at = _shared["grammars"]._closings, []
    compute, most = type(closings)._walk, 1_000

    def counted(self: Any, matcher: Any, order: Any, most_tokens: int, patience: Any) -> Any:
        before = patience.left
        found = compute(self, matcher, order, most_tokens, patience)
        looked_at.append(before - patience.left)
        return found

    monkeypatch.setattr(type(closings), "_walk", counted)
    schema = {"type": "string", "pattern": "^[ab]{600}$", "default": "y" * 8_000}
    text, is_complete = drawn_at_random(JsonSchema.of(schema), most, seed=3)
    assert is_complete and re.fullmatch('"[ab]{600}"', text)
    assert len(looked_at) > 1 and sum(looked_at) < 10 * most + 2_048


def test_what_is_said_of_a_schema_does_not_bring_its_end_nearer(grammars: Grammars) -> None:
    said = {"type": "array", "items": {"type": "integer", "description": "y" * 8_000}}
    plain = {"type": "array", "items": {"type": "integer", "description": ""}}
    assert grammars.form(JsonSchema.of(said))._watched == grammars.form(JsonSchema.of(plain))._watched


def test_formats_that_have_met_a_limit_are_not_kept_for_ever(grammars: Grammars) -> None:
    for number in range(70):
        form = grammars.form(Regex(f"[a-z]{{{number + 1}}}"))
        form._renew()
    assert len(grammars._worn) <= len(grammars._compiled) <= 64


def test_a_stop_token_may_come_only_where_nothing_else_may(tokenizer: HuggingFaceTokenizer) -> None:
    form = _shared["grammars"].form(Choice(("ab", "ac")))
    (a,), (b,), (c,) = (tokenizer.encode(Text(letter)) for letter in "abc")
    bits = np.unpackbits(form.allowed(may_end=False, without=(a,)), bitorder="little")
    assert not bits[a] and bits.any()  # a token for both letters
    form.take(a, 1_000)
    bits = np.unpackbits(form.allowed(may_end=False, without=(b,)), bitorder="little")
    assert bits[c] and not bits[b]
    form.take(c, 1_000)


# ---- calls of tools as their model writes them: with control tokens, where its vocabulary has them ------------------


def vocabulary_of(style: str, folder: Path) -> tuple[HuggingFaceTokenizer, Grammars]:
    tokenizer = HuggingFaceTokenizer(save_vocabulary(style, folder))
    grammars = tokenizer._grammars((tokenizer._hf.eos_token_id,))
    return tokenizer, grammars


@pytest.mark.parametrize("vocabulary", ["qwen25", "mistral_args"])
@pytest.mark.parametrize("style", ["hermes", "mistral", "mistral_args", "llama3_json", "granite"])
@pytest.mark.parametrize("is_parallel", [True, False])
def test_calls_in_every_familys_form_are_read_as_they_were_held(
    tmp_path: Path, vocabulary: str, style: ToolStyle, is_parallel: bool
) -> None:
    tokenizer, grammars = vocabulary_of(vocabulary, tmp_path / "m")
    tools = [("add", PERSON), ("now.utc", {"type": "object", "properties": {}})]
    form = ToolCalls.of(tools, style, is_parallel)
    grammars.check(form)
    controls = {token.content: at for at, token in tokenizer._hf.added_tokens_decoder.items() if token.special}
    names = set()
    for seed in range(5):
        tokens = drawn_with(grammars, form, 120, seed)
        marks = Reader(Reading(tools=style)).marks
        stream, reader = tokenizer.text_stream((), marks), ToolReader(style, is_parallel)
        said = "".join(reader.push(stream.push([token]))[0] for token in tokens) + reader.end()[0]
        assert said == "" and reader.calls and (is_parallel or len(reader.calls) == 1)
        for call in reader.calls:
            jsonschema.validate(json.loads(call.arguments), PERSON if call.name == "add" else {"maxProperties": 0})
        names |= {call.name for call in reader.calls}
        if "[TOOL_CALLS]" in controls and style in ("mistral", "mistral_args"):
            times = len(reader.calls) if style == "mistral_args" else 1
            assert tokens.count(controls["[TOOL_CALLS]"]) == times
    assert names == {"add", "now.utc"}


@pytest.mark.parametrize("marks", [["<|tool_call|>", "<|/tool_call|>"], ["<|tool_call|>"]])  # Phi-4 mini's, Granite's
def test_granites_marks_are_written_and_read_as_the_tokens_that_they_are(tmp_path: Path, marks: list[str]) -> None:
    folder = save_vocabulary("llama3", tmp_path / "m")
    vocabulary = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocabulary.add_special_tokens(marks)
    vocabulary.save(str(folder / "tokenizer.json"))
    tokenizer = HuggingFaceTokenizer(folder)
    assert tokenizer.tool_style == "granite"
    grammars = tokenizer._grammars((tokenizer._hf.eos_token_id,))
    form = ToolCalls.of([("add", PERSON)], "granite", True)
    closed = set()
    for seed in range(8):
        tokens = drawn_with(grammars, form, 120, seed)
        assert tokens[0] == vocabulary.token_to_id("<|tool_call|>")
        closed.add(tokens[-1] == vocabulary.token_to_id("<|/tool_call|>"))
        stream, reader = tokenizer.text_stream((), Reader(Reading(tools="granite")).marks), ToolReader("granite")
        assert "".join(reader.push(stream.push([token]))[0] for token in tokens) + reader.end()[0] == ""
        jsonschema.validate(json.loads(reader.calls[0].arguments), PERSON)
    assert len(marks) == 1 or True in closed


def takes(grammars: Grammars, tokenizer: HuggingFaceTokenizer, format: OutputFormat, text: str) -> bool:
    """The text begins an answer in this form."""
    form = grammars.form(format)
    for token in tokenizer.encode(Text(text)):
        if not np.unpackbits(form.allowed(may_end=True), bitorder="little")[token]:
            return False
        form.take(token, 10_000)
    return True


ANY_ARGUMENTS: list[dict[str, Any]] = [
    {"type": "object"},
    {},
    {"properties": {"b": {"type": "integer"}}, "unevaluatedProperties": True},
    {"properties": {"b": {"type": "integer"}}, "if": {"properties": {"b": {"const": 1}}}, "then": {"required": ["a"]}},
]


@pytest.mark.parametrize("schema", ANY_ARGUMENTS, ids=lambda schema: json.dumps(schema)[:50])
def test_a_tool_that_names_no_arguments_takes_any(
    tokenizer: HuggingFaceTokenizer, grammars: Grammars, schema: dict[str, Any]
) -> None:
    said = '<tool_call>\n{"name": "t", "arguments": {"a": 1}}\n</tool_call>'
    assert takes(grammars, tokenizer, ToolCalls.of([("t", schema)], "hermes", True), said)


@pytest.mark.parametrize("schema", [{"properties": {}}, {"type": "object", "properties": {"b": {"type": "integer"}}}])
def test_a_tool_takes_no_arguments_beside_those_that_it_names(
    tokenizer: HuggingFaceTokenizer, grammars: Grammars, schema: dict[str, Any]
) -> None:
    said = '<tool_call>\n{"name": "t", "arguments": {"a": 1}}\n</tool_call>'
    assert not takes(grammars, tokenizer, ToolCalls.of([("t", schema)], "hermes", True), said)


def test_a_strict_tool_is_refused_where_its_schema_cannot_be_held_to() -> None:
    schema = {"properties": {"a": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}}}
    tools = [("loose", schema), ("strict", PERSON)]
    _shared["grammars"].check(ToolCalls.of(tools, "hermes", True, strict=["strict"]))
    with pytest.raises(BadSchema, match="uniqueItems"):
        _shared["grammars"].check(ToolCalls.of(tools, "hermes", True, strict=["loose"]))


@pytest.mark.parametrize("vocabulary", ["qwen25", "llama3", "mistral_args"])  # whose marks are tokens, text, controls
@pytest.mark.parametrize("style", ["hermes", "mistral", "mistral_args", "granite"])
def test_calls_or_json_are_one_of_the_two_and_valid(tmp_path: Path, vocabulary: str, style: ToolStyle) -> None:
    tokenizer, grammars = vocabulary_of(vocabulary, tmp_path / "m")
    tools = [("add", PERSON), ("now", {"type": "object", "properties": {}})]
    form = ToolCalls.of(tools, style, True, is_required=False, answer=JsonSchema.of(NESTED))
    grammars.check(form)
    marks = Reader(Reading(tools=style)).marks
    # a list is told by its bracket too, where the vocabulary has no token for the mark
    opens = "[" if style == "granite" or (style == "mistral" and vocabulary != "mistral_args") else marks[0]
    before = len(tokenizer.encode(Text("")))  # what begins every text is no answer's
    for kind, begun in {"calls": opens, "json": "{"}.items():
        first = tokenizer.encode(Text(begun))[before:]
        for seed in range(3):
            tokens = [*first, *drawn_with(grammars, form, 120, seed, first)]
            stream, reader = tokenizer.text_stream((), marks), ToolReader(style, names=("add", "now"))
            text = "".join(reader.push(stream.push([token]))[0] for token in tokens) + reader.end()[0]
            if kind == "json":
                assert not reader.calls
                jsonschema.validate(json.loads(text), NESTED)
            else:
                assert text == "" and reader.calls
                for call in reader.calls:
                    jsonschema.validate(json.loads(call.arguments), PERSON if call.name == "add" else {})


def drawn_with(grammars: Grammars, format: OutputFormat, most: int, seed: int, begun: Sequence[int] = ()) -> list[int]:
    """What comes after `begun`, without the end."""
    form, draw, tokens = grammars.form(format), np.random.default_rng(seed), list[int]()
    for token in begun:
        assert form.take(token, 10_000) == token
    for left in range(most - 1, -1, -1):
        token = int(draw.choice(np.flatnonzero(np.unpackbits(form.allowed(may_end=True), bitorder="little"))))
        tokens.append(form.take(token, left))
        if form.is_complete:
            break
    return [token for token in tokens if token not in grammars._ends]


@pytest.mark.parametrize("vocabulary", ["qwen25", "llama3", "mistral_args"])  # whose marks are tokens, text, controls
@pytest.mark.parametrize("style", ["hermes", "mistral", "mistral_args", "granite"])
@pytest.mark.parametrize("is_parallel", [True, False])
def test_where_no_call_is_required_text_is_free_and_calls_in_it_are_valid(
    tmp_path: Path, vocabulary: str, style: ToolStyle, is_parallel: bool
) -> None:
    tokenizer, grammars = vocabulary_of(vocabulary, tmp_path / "m")
    form = ToolCalls.of([("add", PERSON), ("now", {"type": "object"})], style, is_parallel, is_required=False)
    grammars.check(form)
    marks = Reader(Reading(tools=style)).marks
    for said in ("", "I add [1]: <b> ", "<s>[INST]é🦜[/INST] "):
        for seed in range(3):
            # the text is free; behind the mark the model has no sense and the form all of it
            begun = tokenizer.encode(Text(said + marks[0]))
            tokens = [*begun, *drawn_with(grammars, form, 120, seed, begun)]
            stream, reader = tokenizer.text_stream((), marks), ToolReader(style, is_parallel)
            text = "".join(reader.push(stream.push([token]))[0] for token in tokens) + reader.end()[0]
            assert text.startswith(tokenizer.decode(tokenizer.encode(Text(said))).rstrip()) and reader.calls
            for call in reader.calls:
                jsonschema.validate(json.loads(call.arguments), PERSON if call.name == "add" else {"type": "object"})


def test_where_no_call_is_required_there_may_be_none_and_the_text_may_end_anywhere(tmp_path: Path) -> None:
    tokenizer, grammars = vocabulary_of("mistral_args", tmp_path / "m")
    form = grammars.form(ToolCalls.of([("add", PERSON)], "mistral_args", True, is_required=False))
    end = grammars._ends[0]
    said = tokenizer.encode(Text("[THINK]No.[/THINK] Nothing to add"))
    for left, token in zip(range(500, 0, -1), said, strict=False):
        bits = np.unpackbits(form.allowed(may_end=True), bitorder="little")
        assert bits[end] and bits[token]
        assert form.take(token, left) == token and not form.is_complete
    assert form.take(end, 100) == end and form.is_complete
