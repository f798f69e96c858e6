"""Transforms: a closed list of linear, pure text functions."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import re2

from parrot_compat.core.errors import BadTemplate, TransformFailed
from parrot_compat.core.prompt import Constant, Input, TextPrompt
from parrot_compat.core.transform import (
    MAX_JSON_CHARACTERS,
    MAX_PATTERNS,
    MAX_POINTER_CHARACTERS,
    FirstJson,
    JsonPointer,
    Regex,
    Strip,
    parse_transforms,
)


def through(value: Any, text: str) -> str:
    for transform in parse_transforms(value):
        text = transform.apply(text)
    return text


@pytest.mark.parametrize(
    ("transform", "text", "result"),
    [
        ("strip", "  a b \n", "a b"),
        ({"truncate": 3}, "añ😀bc", "añ😀"),
        ({"truncate": {"characters": 0}}, "abc", ""),
        ({"lines": {"end": 2}}, "a\nb\nc", "a\nb"),
        ({"lines": {"first": -1}}, "a\nb\nc", "c"),
        ({"regex": r"\d+"}, "a 12 b 34", "12"),
        ({"regex": {"pattern": r"name: (\pL+)", "group": 1}}, "name: Ünal x", "Ünal"),
        ({"json_pointer": "/a/1/b~1c"}, '{"a": [0, {"b/c": "text"}]}', "text"),
        ({"json_pointer": ""}, '[1, "ü"]', '[1, "ü"]'),
        ("first_json", 'so: {"a": [1]} and {"b": 2}', '{"a": [1]}'),
        ("first_json", "a { b [1, 2] c", "[1, 2]"),
        (["first_json", {"json_pointer": "/a"}, "strip"], '```{"a": " x "}```', "x"),
        (None, "as it is", "as it is"),
    ],
)
def test_what_each_transform_gives(transform: Any, text: str, result: str) -> None:
    assert through(transform, text) == result


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        ({"regex": "x"}, "abc"),
        ({"regex": {"pattern": "a(b)?", "group": 1}}, "a"),
        ({"json_pointer": "/a"}, "no json"),
        ({"json_pointer": "/a"}, '{"b": 1}'),
        ({"json_pointer": "/7"}, "[1]"),
        ({"json_pointer": "/x"}, "[1]"),
        ("first_json", "none here {"),
    ],
)
def test_what_does_not_apply_fails_and_is_never_empty(transform: Any, text: str) -> None:
    with pytest.raises(TransformFailed):
        through(transform, text)


@pytest.mark.parametrize(
    "value",
    [
        "eval",
        {"strip": {}, "lines": {}},
        {},
        5,
        {"truncate": -1},
        {"truncate": True},
        {"truncate": {}},
        {"lines": {"first": "x"}},
        {"regex": "("},
        {"regex": {"pattern": "a", "group": 2}},
        {"regex": "a" * 1001},
        {"regex": {}},
        {"regex": r"(a)\1"},
        {"json_pointer": "a"},
        {"json_pointer": 1},
        {"json_pointer": "/" * (MAX_POINTER_CHARACTERS + 1)},
        {"lines": 5},
        {"regex": ["a"]},
        {"regex": {"pattern": "a", "group": 10**5000}},
        {"truncate": {"x": 10**5000}},
        {"truncate": "x" * 100_000},
        {"x" * 100_000: {}},
        dict.fromkeys(map(str, range(10_000))),
        ["strip"] * 17,
        [["strip"] * 9, [["strip"] * 8]],
        [[]] * 1_000_000,
        [[[[]] * 16] * 16],
        [None] * 17,
        ["first_json", *[{"json_pointer": "/a"}] * 4],
    ],
)
def test_a_bad_transform_is_refused_when_it_is_given(value: Any) -> None:
    with pytest.raises(BadTemplate) as refused:
        parse_transforms(value)
    assert len(str(refused.value)) < 2000, "what it says of the value is short, whatever that is"


def test_lists_of_nothing_change_nothing() -> None:
    assert parse_transforms([[], None, [[None], "strip"], []]) == (Strip(),)


@pytest.mark.parametrize("pattern", [r"(?i:\pL{300})0001", r"\pL{1,40}", "(.{0,300}){0,3}x.{1,900}"])
def test_a_pattern_that_would_take_long_to_compile_is_refused(pattern: str) -> None:
    with pytest.raises(BadTemplate, match="pattern too large"):
        Regex(pattern)


@pytest.mark.parametrize("pattern", [r"\pL{9}", "(a{1,30}){1,30}b", ".{1,1000}", r"(?i)answer:\s*(\pL[\pL\s]*)"])
def test_a_pattern_of_common_size_is_taken(pattern: str) -> None:
    assert Regex(pattern).pattern == pattern


def test_a_request_names_so_many_patterns_and_one_more_is_not_even_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    compile = re2.compile

    def noted(pattern: str, options: Any) -> Any:
        compiled.append(pattern)
        return compile(pattern, options)

    monkeypatch.setattr(re2, "compile", noted)
    patterns: set[str] = set()
    for _ in range(3):
        for number in range(MAX_PATTERNS):
            assert parse_transforms({"regex": f"a{number}"}, patterns)
    with pytest.raises(BadTemplate, match=f"at most {MAX_PATTERNS} different regexes"):
        parse_transforms(["strip", {"regex": {"pattern": "one more"}}], patterns)
    assert len(set(compiled)) == MAX_PATTERNS
    assert parse_transforms({"regex": "one more"}), "another request has patterns of its own"


def test_sixteen_transforms_follow_each_other() -> None:
    assert through(["strip", [{"truncate": 9}] * 15], "  a ") == "a"


def test_a_pattern_that_would_backtrack_for_ever_is_linear_here() -> None:
    started = time.process_time()
    with pytest.raises(TransformFailed):
        Regex(r"(a+)+$").apply("a" * 50_000 + "b")
    assert time.process_time() - started < 60  # a backtracking engine would need longer than the universe has


@pytest.mark.parametrize(
    ("transforms", "value"),
    [
        (({"json_pointer": "/a"}, {"regex": "x(.)"}), '{"a": "x\\ud83d"}'),
        (({"json_pointer": "/" + "9" * 5000},), "[1]"),
    ],
)
def test_a_value_that_no_library_of_text_takes_fails_as_any_other(transforms: Any, value: str) -> None:
    with pytest.raises(TransformFailed):
        Input("v", parse_transforms(transforms)).fill(value)


def test_an_input_is_filled_through_its_transforms() -> None:
    prompt = TextPrompt((Constant("<"), Input("x", (Strip(),)), Constant(">")))
    assert prompt.bind({"x": " a "}).text == "<a>"


@pytest.mark.parametrize("text", ["[" * 256 + "1," * 100_000, "[" * 256 + '"' + "a" * 200_000, "[" * 20_000])
def test_looking_for_json_reads_a_text_some_times_at_most(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []
    decode = json.JSONDecoder.raw_decode

    def noted(self: json.JSONDecoder, s: str, idx: int = 0) -> tuple[Any, int]:
        starts.append(idx)
        return decode(self, s, idx)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", noted)
    with pytest.raises(TransformFailed):
        FirstJson().apply(text)
    assert len(starts) <= 100


def test_json_is_read_in_texts_that_are_not_too_long() -> None:
    text = '["' + "x" * (MAX_JSON_CHARACTERS - 4) + '"]'
    assert FirstJson().apply(text) == text and len(JsonPointer("/0").apply(text)) == MAX_JSON_CHARACTERS - 4
    for transform, name in ((FirstJson(), "first_json"), (JsonPointer("/0"), "json_pointer")):
        with pytest.raises(TransformFailed, match=f"{name}: JSON is read in at most {MAX_JSON_CHARACTERS} characters"):
            transform.apply(text + " ")


def test_the_larger_a_pattern_the_shorter_is_the_text_that_it_searches() -> None:
    with pytest.raises(TransformFailed, match=r"searches at most \d+ characters, not 1000000"):
        Regex(r"\pL{9}").apply("a" * 1_000_000)
    assert Regex(r"answer: (\w+)", 1).apply("a" * 1_000_000 + " answer: yes") == "yes"


def test_json_behind_much_that_only_looks_like_it_is_found() -> None:
    assert FirstJson().apply("[see 1] " * 200 + '{"a": [1]}') == '{"a": [1]}'
    assert FirstJson().apply("[" + "1, " * 50_000 + 'x {"a": 1}') == '{"a": 1}'
    broken = '{"a": ' * 8 + f'"{"long " * 20_000}", ' + "}" * 8
    assert FirstJson().apply(broken + ' Fixed: {"a": 1}') == '{"a": 1}'
