"""Schemas that are not strict are held to as far as they can be, tools as far as what they require can be met."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from parrot_compat.core.call import Reading
from parrot_compat.core.engine import Chunk
from parrot_compat.core.errors import BadSchema
from parrot_compat.core.output_format import JsonSchema, OutputFormat, ToolCalls, ToolStyle
from parrot_compat.core.prompt import Text
from parrot_compat.core.reading import Reader
from parrot_compat.gpu.forms.loosening import without_unreadable
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from tests.gpu.vocabularies import save_vocabulary

from .test_grammar import PERSON, drawn_with, takes

if TYPE_CHECKING:
    from parrot_compat.gpu.forms.grammar import Grammars

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

LARGE = 10**20


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(save_vocabulary("qwen25", tmp_path_factory.mktemp("vocabulary") / "m"))


@pytest.fixture(scope="module")
def grammars(tokenizer: HuggingFaceTokenizer) -> Grammars:
    return tokenizer._grammars((tokenizer._hf.eos_token_id,))


def with_look_ahead(pattern: str = "^(?!x)") -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "pattern": pattern, "maxLength": 9},
            "digits": {"type": "string", "pattern": "^[0-9]{1,4}$"},
        },
        "required": ["pattern", "digits"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("pattern", ["^(?!x)", r"\bfoo\b", r"(a)\1", "(?<=x)y", "("])
def test_a_schema_that_is_not_strict_loses_the_patterns_that_cannot_be_read_and_keeps_the_rest(
    tokenizer: HuggingFaceTokenizer, grammars: Grammars, pattern: str
) -> None:
    format = JsonSchema.of(with_look_ahead(pattern), strict=False)
    grammars.check(format)
    for seed in range(4):
        answer = json.loads(tokenizer.decode(drawn_with(grammars, format, 100, seed)))
        assert list(answer) == ["pattern", "digits"] and len(answer["pattern"]) <= 9
        assert answer["digits"].isdigit()
    with pytest.raises(BadSchema):
        grammars.check(JsonSchema.of(with_look_ahead(pattern)))


def test_names_by_a_pattern_that_cannot_be_read_are_free(tokenizer: HuggingFaceTokenizer, grammars: Grammars) -> None:
    schema = {
        "type": "object",
        "patternProperties": {"^(?!x)": {"type": "integer"}, "^y": {"const": 1}},
        "additionalProperties": False,
    }
    assert takes(grammars, tokenizer, JsonSchema.of(schema, strict=False), '{"a": 5, "y": 1}')
    assert not takes(grammars, tokenizer, JsonSchema.of(schema, strict=False), '{"y": 2}')
    with pytest.raises(BadSchema):
        grammars.check(JsonSchema.of(schema))


@pytest.mark.parametrize("is_required", [True, False])
def test_so_do_tools_that_are_not_strict(
    tokenizer: HuggingFaceTokenizer, grammars: Grammars, is_required: bool
) -> None:
    tools = [("loose", with_look_ahead()), ("add", PERSON)]
    form = ToolCalls.of(tools, "hermes", True, is_required, strict=["add"])
    grammars.check(form)
    good = '<tool_call>\n{"name": "loose", "arguments": {"pattern": "x", "digits": "12"}}\n</tool_call>'
    assert takes(grammars, tokenizer, form, good)
    assert not takes(grammars, tokenizer, form, good.replace("12", "ab"))
    with pytest.raises(BadSchema):
        grammars.check(ToolCalls.of(tools, "hermes", True, is_required, strict=["loose"]))


def test_an_answer_beside_tools_may_lose_its_patterns_too(grammars: Grammars) -> None:
    for strict in (False, True):
        answer = JsonSchema.of(with_look_ahead(), strict=strict)
        form = ToolCalls.of([("add", PERSON)], "hermes", True, False, answer, strict=["add"])
        if strict:
            with pytest.raises(BadSchema):
                grammars.check(form)
        else:
            grammars.check(form)


@pytest.mark.parametrize("schema", [{"const": LARGE}, {"enum": [LARGE]}, {"type": "integer", "maximum": LARGE}])
@pytest.mark.parametrize("strict", [True, False])
def test_numbers_may_be_large(
    tokenizer: HuggingFaceTokenizer, grammars: Grammars, schema: dict[str, Any], strict: bool
) -> None:
    format = JsonSchema.of(schema, strict=strict)
    grammars.check(format)
    jsonschema.validate(json.loads(tokenizer.decode(drawn_with(grammars, format, 60, 0))), schema)


def test_what_is_no_pattern_of_a_schema_is_left_as_it_is() -> None:
    schema: Any = {
        "properties": {
            "pattern": {"pattern": "bad"},
            "const": {"items": [{"pattern": "good"}, {"pattern": "bad", "type": "string"}]},
            "enum": {"enum": [{"pattern": "bad"}], "default": {"pattern": "bad"}},
        },
        "$defs": {"patternProperties": {"patternProperties": {"good": {"pattern": "bad"}, "bad": {}}}},
    }
    tried = list[str]()

    def reads(pattern: str) -> bool:
        tried.append(pattern)
        return pattern == "good"

    found = without_unreadable(JsonSchema.of(schema, strict=False), reads)
    assert isinstance(found, JsonSchema) and sorted(tried) == ["bad", "good"]
    assert json.loads(found.schema) == {
        "properties": {
            "pattern": {},
            "const": {"items": [{"pattern": "good"}, {"type": "string"}]},
            "enum": {"enum": [{"pattern": "bad"}], "default": {"pattern": "bad"}},
        },
        "$defs": {"patternProperties": {"patternProperties": {"good": {}}}},
    }
    assert without_unreadable(JsonSchema.of(schema), reads) is None
    assert without_unreadable(JsonSchema.of(PERSON, strict=False), reads) is None


def test_of_many_patterns_a_bounded_number_is_tried() -> None:
    schema = {"anyOf": [{"pattern": f"(?=x){number}"} for number in range(1000)]}
    tried = list[str]()
    without_unreadable(JsonSchema.of(schema, strict=False), lambda pattern: bool(tried.append(pattern)))
    assert len(tried) == 64


# ---- tools ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["hermes", "mistral", "mistral_args"])
def test_where_one_call_is_wanted_a_call_in_the_thoughts_is_not_it(tmp_path: Path, style: ToolStyle) -> None:
    tokenizer = HuggingFaceTokenizer(save_vocabulary("qwen25", tmp_path / "m"))
    grammars = tokenizer._grammars((tokenizer._hf.eos_token_id,))
    arguments = '{"name": "A", "age": 1, "tags": ["a"]}'
    call = {
        "hermes": f'<tool_call>\n{{"name": "add", "arguments": {arguments}}}\n</tool_call>',
        "mistral": f'[TOOL_CALLS] [{{"name": "add", "arguments": {arguments}}}]',
        "mistral_args": f"[TOOL_CALLS]add[ARGS]{arguments}",
    }[style]
    text = f"<think>as {call} or so</think>{call}"
    format = ToolCalls.of([("add", PERSON)], style, False, is_required=False, strict=["add"])
    grammars.check(format)
    form, stream = grammars.form(format), tokenizer.text_stream()
    reader = Reader(Reading(tools=style, reasoning="think", is_parallel=False))
    calls = []
    for token in tokenizer.encode(Text(text)):
        assert np.unpackbits(form.allowed(may_end=True), bitorder="little")[token]
        form.take(token, 10_000)
        calls += reader.read(Chunk(text=stream.push([token]), tokens=(token,))).calls
    assert {piece.index for piece in calls} == {0}
    assert json.loads("".join(piece.arguments for piece in calls)) == json.loads(arguments)


@pytest.mark.parametrize("style", ["hermes", "mistral_args"])
def test_a_tool_may_require_more_than_it_names(
    tokenizer: HuggingFaceTokenizer, grammars: Grammars, style: ToolStyle
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b"]}
    for strict in ((), ("t",)):
        form: OutputFormat = ToolCalls.of([("t", schema)], style, True, strict=strict)
        grammars.check(form)
        text = tokenizer.decode(drawn_with(grammars, form, 80, 1))
        arguments = json.JSONDecoder().raw_decode(text[text.index('{"a"') :])[0]
        jsonschema.validate(arguments, schema)


FORMATS = (
    *("date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6"),
    *("uri", "uri-reference", "iri", "iri-reference", "uuid", "json-pointer", "regex", "unknown"),
)


@pytest.mark.parametrize("style", ["qwen25", "llama2"])
@pytest.mark.parametrize("name", FORMATS)
def test_texts_of_every_format_have_an_answer_alone_and_as_an_argument(
    name: str, style: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    grammars = grammars_of(style, tmp_path_factory)
    schema = {"type": "object", "properties": {"to": {"type": "string", "format": name}}, "required": ["to"]}
    grammars.check(JsonSchema.of(schema, strict=False))
    grammars.check(ToolCalls.of([("f", schema)], "hermes", is_parallel=True))


_GRAMMARS: dict[str, Grammars] = {}


def grammars_of(style: str, tmp_path_factory: pytest.TempPathFactory) -> Grammars:
    if style not in _GRAMMARS:
        saved = HuggingFaceTokenizer(save_vocabulary(style, tmp_path_factory.mktemp("vocabulary") / "m"))
        _GRAMMARS[style] = saved._grammars((saved._hf.eos_token_id,))
    return _GRAMMARS[style]
