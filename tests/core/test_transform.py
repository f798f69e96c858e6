"""Transforms: a closed list of linear, pure text functions."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from parrot_compat.core.errors import BadTemplate, TransformFailed
from parrot_compat.core.prompt import Constant, Input, TextPrompt
from parrot_compat.core.transform import FirstJson, Regex, Strip, parse_transforms


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
        ["strip"] * 17,
        [["strip"] * 9, [["strip"] * 8]],
    ],
)
def test_a_bad_transform_is_refused_when_it_is_given(value: Any) -> None:
    with pytest.raises(BadTemplate):
        parse_transforms(value)


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


def test_json_behind_much_that_only_looks_like_it_is_found() -> None:
    assert FirstJson().apply("[see 1] " * 200 + '{"a": [1]}') == '{"a": [1]}'
    assert FirstJson().apply("[" + "1, " * 50_000 + 'x {"a": 1}') == '{"a": 1}'
    broken = '{"a": ' * 8 + f'"{"long " * 20_000}", ' + "}" * 8
    assert FirstJson().apply(broken + ' Fixed: {"a": 1}') == '{"a": 1}'
