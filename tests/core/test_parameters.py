"""What a model writes as plain text is the JSON that its schema says, and a text where it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.core.parameters import json_of, kinds_of, schema_of, written_as

COLOR = {"enum": ["red", "blue"]}
ROOT: dict[str, Any] = {
    "type": "object",
    "properties": {"color": {"$ref": "#/$defs/Color"}, "a/b": {"type": "integer"}, "self": {"$ref": "#/$defs/Loop"}},
    "additionalProperties": {"type": "number"},
    "$defs": {"Color": COLOR, "Loop": {"$ref": "#/$defs/Loop"}},
}
STRING = frozenset({"string"})


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [
        ({"type": "integer"}, {"integer"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"integer", "null"}),
        ({"oneOf": [{"type": "array"}, {}]}, {"array", "string"}),
        ({"$ref": "#/$defs/Color"}, {"string"}),
        ({"allOf": [{"$ref": "#/$defs/Color"}], "default": "red"}, {"string"}),
        ({"allOf": [{"minimum": 1}, {"type": "number"}]}, {"number"}),
        ({"enum": [1, "a", None, True, 0.5]}, {"integer", "string", "null", "boolean", "number"}),
        ({"const": {}}, {"object"}),
        ({"properties": {}}, {"object"}),
        ({"items": {}}, {"array"}),
        ({"description": "nothing said"}, {"string"}),
        ({"$ref": "#/properties/a~1b"}, {"integer"}),
        ({"$ref": "#/nowhere/at/all"}, {"string"}),
        ({"$ref": "https://example.com/a"}, {"string"}),
        ({"$ref": "#/$defs/Loop"}, {"string"}),
        (True, {"string"}),
        (None, {"string"}),
    ],
)
def test_a_schema_says_what_a_value_may_be(schema: Any, kinds: set[str]) -> None:
    assert kinds_of(schema, ROOT) == kinds


def test_a_parameter_that_is_not_listed_is_what_the_schema_says_of_more() -> None:
    assert schema_of("a/b", ROOT) == {"type": "integer"}
    assert schema_of("other", ROOT) == {"type": "number"}
    assert schema_of("other", {"properties": {"a": {}}}) == schema_of("other", {"additionalProperties": True}) == {}
    assert schema_of("x", {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"x": COLOR}}}}) == COLOR


@pytest.mark.parametrize(
    ("text", "kinds", "told"),
    [
        ("5", {"integer"}, "5"),
        ("5", {"string"}, '"5"'),
        ("5", {"string", "integer"}, "5"),
        ("5", {"string", "number"}, "5"),
        ("5", {"string", "null"}, '"5"'),
        ("5.5", {"string", "integer"}, '"5.5"'),
        (" 1e3\n", {"number"}, "1e3"),
        ("five", {"integer"}, '"five"'),
        ("", {"integer"}, '""'),
        ("True", {"boolean"}, "true"),
        ("None", {"string", "null"}, "null"),
        ("null", {"string"}, '"null"'),
        ("null", {"integer"}, "null"),
        ('{"a": [1, 2]}', {"object"}, '{"a": [1, 2]}'),
        ("{'a': 1}", {"object"}, "\"{'a': 1}\""),
        ('["a"]', {"string", "array"}, '["a"]'),
        ('"quoted"', {"string", "null"}, '"\\"quoted\\""'),
        ("NaN", {"number"}, '"NaN"'),
        ("[" * 100_000, {"array"}, json.dumps("[" * 100_000)),
    ],
)
def test_a_text_is_what_it_may_be(text: str, kinds: set[str], told: str) -> None:
    assert json_of(text, frozenset(kinds)) == told


@given(text=st.text())
def test_of_what_is_a_text_nothing_is_taken_for_anything_else(text: str) -> None:
    assert json.loads(json_of(text, STRING)) == text


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner | st.text(), max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_no_text_comes_back_as_it_was_written(value: Any) -> None:
    assert json.loads(json_of(written_as(value), kinds_of({"const": value}, {}))) == value
