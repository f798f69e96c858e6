"""A form may have the names of control tokens in it as text: they are spelled out, and end or begin nothing."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from parrot_compat.core.errors import BadSchema
from parrot_compat.core.output_format import Choice, Grammar, JsonSchema, OutputFormat, Regex, ToolCalls
from parrot_compat.core.prompt import Text
from parrot_compat.gpu.models.weights import locate
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from tests.gpu.vocabularies import save_vocabulary

from .test_grammar import drawn_with

if TYPE_CHECKING:
    from parrot_compat.gpu.forms.grammar import Grammars

llguidance = pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

VOCABULARIES = ("qwen25", "llama3", "llama2", "mistral", "phi3", "mistral_args", "builtin:tiny")
NAMED: dict[str, Any] = {
    "type": "object",
    "properties": {"tag": {"enum": ["<|im_end|>", "<tool_call>", "</s>", "[INST]"]}, "n": {"type": "integer"}},
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=VOCABULARIES)
def vocabulary(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[HuggingFaceTokenizer, Grammars]:
    style: str = request.param
    folder = tmp_path_factory.mktemp("vocabulary") / "m"
    tokenizer = HuggingFaceTokenizer(locate(style) if ":" in style else save_vocabulary(style, folder))
    return tokenizer, tokenizer._grammars((tokenizer._hf.eos_token_id,))


def said(vocabulary: tuple[HuggingFaceTokenizer, Grammars], format: OutputFormat, seed: int) -> str:
    tokenizer, grammars = vocabulary
    stream = tokenizer.text_stream()
    stream.follow(tokenizer.encode(Text("a"))[-1])
    return stream.push(drawn_with(grammars, format, 64, seed)) + stream.flush()


def test_a_schema_may_name_control_tokens(vocabulary: tuple[HuggingFaceTokenizer, Grammars]) -> None:
    tags = set()
    for seed in range(40):
        answer = json.loads(said(vocabulary, JsonSchema.of(NAMED), seed))
        jsonschema.validate(answer, NAMED)
        tags.add(answer.get("tag"))
    assert len(tags) > 2
    vocabulary[1].check(JsonSchema.of({"const": "<|im_end|>"}))
    assert said(vocabulary, JsonSchema.of({"const": "a<|im_end|></s>"}), 0) == '"a<|im_end|></s>"'


@pytest.mark.parametrize(
    ("format", "pattern"),
    [
        (Choice(("<tool_call>",)), "<tool_call>"),
        (Choice(("a <|im_end|> b", "no")), r"a <\|im_end\|> b|no"),
        (Regex(r"<tool_call>\d{1,9}</tool_call>"), r"<tool_call>\d+</tool_call>"),
        (Grammar('start: "<tool_call>" /[0-9]{1,9}/'), r"<tool_call>\d+"),
        (Grammar('root ::= "</s>" [0-9]'), r"</s>\d"),
    ],
    ids=repr,
)
def test_other_forms_may_too(
    vocabulary: tuple[HuggingFaceTokenizer, Grammars], format: OutputFormat, pattern: str
) -> None:
    vocabulary[1].check(format)
    for seed in range(3):
        assert re.fullmatch(pattern, said(vocabulary, format, seed))


def test_a_grammar_means_a_control_token_by_its_name(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(save_vocabulary("qwen25", tmp_path / "m"))
    grammars = tokenizer._grammars((tokenizer._hf.eos_token_id,))
    mark = tokenizer._hf.convert_tokens_to_ids("<tool_call>")
    for rules in (
        'start: <tool_call> "<tool_call>" // not <nobody>\n',
        f'start: <[{mark}]> "<tool_call>"',
        'start: <tool_call> a\na: %json {"enum": [1]} | "<tool_call>"',
    ):
        form = grammars.form(Grammar(rules))
        assert list(np.flatnonzero(np.unpackbits(form.allowed(may_end=True), bitorder="little"))) == [mark]
        form.take(mark, 100)
        allowed = np.unpackbits(form.allowed(may_end=True), bitorder="little")
        assert allowed[tokenizer.encode(Text("<"))[0]] and not allowed[mark]
    with pytest.raises(BadSchema, match="<nobody>"):
        grammars.check(Grammar('start: "a" <nobody>'))


def test_a_tools_text_may_name_the_marks_of_calls(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(save_vocabulary("qwen25", tmp_path / "m"))
    grammars = tokenizer._grammars((tokenizer._hf.eos_token_id,))
    schema = {"type": "object", "properties": {"tag": {"const": "<|im_end|>"}}, "required": ["tag"]}
    form = ToolCalls.of([("<tool_call>", schema)], "hermes", False)
    grammars.check(form)
    tokens = drawn_with(grammars, form, 64, 0)
    marks = [tokenizer._hf.convert_tokens_to_ids(name) for name in ("<tool_call>", "</tool_call>")]
    assert [tokens[0], tokens[-1]] == marks and not {*marks} & {*tokens[1:-1]}
    arguments = '{"name": "<tool_call>", "arguments": {"tag": "<|im_end|>"}}'
    assert tokenizer.decode(tokens) == f"<tool_call>\n{arguments}\n</tool_call>"


def test_an_answer_that_ends_before_its_form_does_is_told_of(
    vocabulary: tuple[HuggingFaceTokenizer, Grammars], caplog: pytest.LogCaptureFixture
) -> None:
    grammars = vocabulary[1]
    with caplog.at_level(logging.WARNING):
        form = grammars.form(Choice(("yes",)))
        form.take(grammars._ends[0], 100)
    assert form.is_ended and "ended before its form" in caplog.text
