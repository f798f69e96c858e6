"""What a grammar would have a library write out is counted before the library reads it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from typing import Any

import pytest

from parrot_compat.core.errors import BadSchema
from parrot_compat.gpu.forms.sizes import check_gbnf, check_lark, check_pattern, check_schema
from parrot_compat.gpu.forms.sizes.lark import forced_of_lark
from parrot_compat.gpu.forms.sizes.pattern import forced_of
from parrot_compat.gpu.forms.sizes.schema import _named_sizes
from parrot_compat.gpu.forms.sizes.size import largest


def doubling(levels: int, name: str) -> str:
    rules = [f"{name}{level}: {name}{level + 1} {name}{level + 1}" for level in range(levels)]
    return "\n".join([f"start: {name}0", *rules, f'{name}{levels}: "x"'])


def chain(length: int) -> str:
    return "\n".join(["start: r0", *(f"r{at}: r{at + 1}" for at in range(length)), f'r{length}: "x"'])


def of_pairs(levels: int, base: str = "#/$defs/") -> dict[str, Any]:
    def pair(level: int) -> dict[str, Any]:
        inner = {"$ref": f"{base}p{level + 1}"}
        return {"type": "array", "prefixItems": [inner, inner], "minItems": 2, "items": False}

    parts = {f"p{level}": pair(level) for level in range(levels)} | {f"p{levels}": {"const": 1}}
    return {"$ref": f"{base}p0", "$defs": parts}


def of_arrays(levels: int, items: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"const": 1}
    for _ in range(levels):
        schema = {"type": "array", "items": schema, "minItems": items, "maxItems": items}
    return schema


LABELS = "(" + "|".join(f"category_{at:04d}_long_label" for at in range(700)) + ")"
OPERATORS = ("Add", "Sub", "Mul", "Div", "Eq", "Lt", "Gt", "And", "Or", "Mod")
UNION = {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in (*OPERATORS, "Lit")]}
SYNTAX_TREE = UNION | {
    "$defs": {
        name: {
            "type": "object",
            "properties": {"op": {"const": name}, "left": UNION, "right": UNION},
            "required": ["op", "left", "right"],
        }
        for name in OPERATORS
    }
    | {"Lit": {"type": "integer"}}
}
"""As pydantic writes a recursive union of models."""


def merged_arrays(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"const": "x" * 1000}
    for _ in range(levels):
        schema = {"type": "array", "minItems": 60, "maxItems": 60, "allOf": [{"items": schema}]}
    return schema


def merged_objects(levels: int) -> dict[str, Any]:
    def both(level: int) -> dict[str, Any]:
        inner = {"$ref": f"#/$defs/p{level + 1}"}
        return {"type": "object", "properties": {"a": inner, "b": inner}, "allOf": [{"required": ["a", "b"]}]}

    return {"$ref": "#/$defs/p0", "$defs": {f"p{at}": both(at) for at in range(levels)} | {f"p{levels}": {"const": 1}}}


@pytest.mark.parametrize(
    "pattern",
    [
        "(a{1000}){1000}",
        "(x{ 3000 }){ 3000 }",
        "(x{0000003000}){0000003000}",
        "x{" + "9" * 5000 + "}",
        "((a{2,300}){,300})",
        "x{20000}",
        "a|(x{ 3000 }){ 3000 }",
        "(" + "|".join(["x{20000}"] * 2) + ")y",
        "\n(x{3000}){3000}",
    ],
)
def test_a_pattern_that_is_long_once_written_out_is_refused(pattern: str) -> None:
    with pytest.raises(BadSchema, match="at most"):
        check_pattern(pattern)
    with pytest.raises(BadSchema, match="at most"):
        check_schema({"properties": {"a": {"anyOf": [{"type": "null"}, {"pattern": pattern}]}}})
    with pytest.raises(BadSchema, match="at most"):
        check_lark(f"start: /{pattern}/")


@pytest.mark.parametrize(
    ("pattern", "forced"),
    [
        ("([0-9a-f]{4}:){7}[0-9a-f]{4}", 39),
        ("[^\\n]{0,20000}", 1),
        ("[}{(]+\\{{2}", 4),
        ("(a|b)*c?", 4),
        (LABELS, len("category_0000_long_label")),
        (r"\u{20000}\x{3000}", 2),
    ],
)
def test_what_people_write_is_read(pattern: str, forced: int) -> None:
    assert forced_of(pattern) == forced
    check_pattern(pattern)
    check_schema({"type": "string", "pattern": pattern})
    check_lark(f"start: A\nA: /{pattern}/")


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("(?x)(a{200}) {100}", "flag x"), ("a(?i-ux:b)", "flag x"), ("a[b\\]", "bracket"), ("[", "bracket")],
)
def test_a_pattern_of_which_no_size_can_be_told_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(BadSchema, match=why):
        check_pattern(pattern)
    with pytest.raises(BadSchema, match=why):
        check_schema({"pattern": pattern})
    with pytest.raises(BadSchema, match=why):
        check_lark(f"start: /{pattern}/")


def test_what_only_looks_like_a_flag_or_a_bracket_is_text() -> None:
    text = r"[(?x]\[\(?x(?:x)(?i:[\]x])"
    check_pattern(text)
    with pytest.raises(BadSchema, match="flag x"):
        check_pattern(text + "(?x)")
    with pytest.raises(BadSchema, match="bracket"):
        check_pattern(text + "[x")


@pytest.mark.parametrize(
    "schema",
    [
        of_pairs(20),
        of_pairs(20, "#/%24defs/"),
        of_pairs(20, "json-schema:///#/$defs/"),
        {"$id": "https://a.b/c/pairs"} | of_pairs(20, "pairs#/$defs/"),
        {"$id": "https://a.b/c/pairs"} | of_pairs(20, "../c/./pairs#/$defs/"),
        {"$ref": "x", "$defs": {"x": {"$id": "x"} | of_pairs(20), "p0": {"const": 1}}, "p0": {"const": 1}},
        of_arrays(3, 40),
        {"anyOf": [{"type": "null"}, of_arrays(3, 40)]},
        {"type": "object", "properties": {"may": of_arrays(3, 40)}},
        {"$ref": "#many", "$defs": {"x": {"$anchor": "many", **of_arrays(3, 40)}}},
        {"type": "array", "items": {"enum": ["x" * 100]}, "minItems": 1e9},
        {"anyOf": [False, {"type": "string", "const": 1}, {"enum": []}, of_arrays(3, 40)]},
        {"type": "array", "items": {"pattern": "^a*$", "minLength": 1000}, "minItems": 40},
        merged_arrays(2),
        merged_objects(12),
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
def test_a_schema_that_forces_more_than_a_long_text_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(BadSchema, match="the schema forces"):
        check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "forced"),
    [
        (of_pairs(8), 256),
        ({"$id": "https://a.b/pairs"} | of_pairs(8, "pairs#/$defs/"), 256),
        ({"$ref": "B", "$defs": {at: {"$id": at, "enum": [at * 9]} for at in "ABC"}}, 11),
        (of_arrays(2, 40), 4880),
        (SYNTAX_TREE, 34),
        ({"type": "string", "enum": [f"{at:04d} is a label" for at in range(900)]}, 17),
        (
            {
                "allOf": [{"$ref": "#/$defs/a"}],
                "description": "one",
                "$defs": {"a": {"properties": {"b": of_arrays(2, 40)}}},
            },
            4887,
        ),
        ({"type": "array", "items": {"type": "string", "minLength": 5000}, "minItems": 500}, 1000),
        ({"$ref": "#"}, 0),
        (
            {
                "$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}}, "required": ["next"]}},
                "$ref": "#/$defs/n",
            },
            20,
        ),
        ({"properties": {"pattern": {"type": "string"}, "items": {"type": "array"}, "enum": {"const": 1}}}, 13),
        ({"$ref": "#/properties/a/nowhere/1", "items": True, "properties": {"a": False}}, 7),
        ({"properties": {f"p{at}": {"enum": ["yes", "no"]} for at in range(500)}}, 14),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_a_schema_that_leaves_what_is_long_open_is_read(schema: dict[str, Any], forced: int) -> None:
    assert largest(_named_sizes(schema)) == forced
    check_schema(schema)


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(300):
        schema = {"not": schema}
    with pytest.raises(BadSchema, match="nested too deeply"):
        check_schema(schema)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (doubling(18, "r"), "forces"),
        (doubling(18, "R"), "places"),
        ("start: A\nA: B{300}\nB: C{300}\nC: /x/", "places"),
        ("start: a~300..300\na: b~300\nb: C\nC: /x/", "forces"),
        ('start: "y" | a\na: ((("x"{ 40 }){40}){40})', "forces"),
        ('start: "y" (a)*\na: b{1000}\nb: "x"{1000}', "forces"),
        ("start: a\n\n// a: b\n%ignore A\nA: B{0,1000}\nB: /x{0,1000}/", "places"),
        ('start: [a] "y"  a: b b b  b: c{500}  c: "x"{500}', "forces"),
        ("start: %json " + json.dumps(of_arrays(3, 40)), "schema forces"),
        ("start: a{2000}\na: %json " + json.dumps({"const": "x" * 20}), "forces"),
        (chain(3000), "has 3002 rules"),
        ('start: (b0 b0)\n?b0: (b1 b1)\n?b1: (b2 b2)\n!?b2: (b3 b3)\nb3: "' + "x" * 3000 + '"', "forces"),
        ('start: %json {"type":"array","items":{"const":"a long one"},"minItems":1e999}', "forces"),
        ('start: %json {"const":' + "[" * 990 + "]" * 990 + "}", "nested|forces"),
        ("start: " + "(" * 500 + '"x"' + ")" * 500, "nested"),
        ('start: %lark { start: "x" }', "%lark"),
        ('start: a{+300}\na: b{ +300 , }\nb: "x"', "forces"),
        ('start: a~+300..+300\na: b~ +300\nb: "x"', "forces"),
        ('start: a{2000}\na[stop="]", suffix=/]\\/]/, capture]: "x"{2000}', "forces"),
        ("start: a{2000}\na[stop=<[3-5]>]: /x{2000}/", "forces"),
        ('start: a::0\na::_: "x" a::incr(_) %if lt(_, 1000000)\n  | "" %if ge(_, 1000000)', "parameters"),
        ("start: /(x{200}) {100} # [/x", "flag x"),
        ('start: "x', "does not end"),
        ('start: "x\n"', "does not end"),
        ("start: /x\n", "does not end"),
    ],
    ids=lambda text: text[:30],
)
def test_a_grammar_that_is_long_once_written_out_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadSchema, match=why):
        check_lark(text)


def test_a_grammar_of_many_rules_is_refused_before_it_is_written_as_another() -> None:
    check_gbnf("root ::= r\n" + 'r ::= "x"\n' * 999)
    with pytest.raises(BadSchema, match="has 1001 rules"):
        check_gbnf("root ::= r\n" + 'r ::= "x"\n' * 1000)


ARITHMETIC = """
?start: sum          // what people call an expression
?sum: product (("+" | "-") product)*
""" + "\n".join(f"?product{at or ''}: product{at + 1} (/[*{at}]/ product{at + 1})*" for at in range(24))
ARITHMETIC += """
?product24: NUMBER | "(" sum ")" | "-" product24
NUMBER[lazy]: /[0-9]{1,30}/ ("." DIGIT~1..20)?
DIGIT.2: "0".."9"
%ignore /[ \\t]{0,8}/
%import common.WS
start2[capture, max_tokens=10]: %json {"type": "object"} <|end|> | "a:b" "//"
"""


@pytest.mark.parametrize(
    ("text", "forced"),
    [
        (ARITHMETIC, 9),
        (doubling(10, "r"), 3 * 2**10),
        (doubling(10, "R"), 3 * 2**10),
        (chain(400), 3),
        ('start: "(" start ")" | "x"', 6),
        ("", 0),
        ("a: ?*|", 0),
    ],
)
def test_a_grammar_with_many_levels_is_read(text: str, forced: int) -> None:
    assert forced_of_lark(text) == forced
    check_lark(text)


LONG = 60_000


SPELLINGS = ["".join(signs) for signs in product(("~", "~0"), repeat=11)]
"""Of one name in a pointer."""


def over_and_over(text: str) -> str:
    return text * (LONG // len(text))


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (check_lark, "a" + " " * LONG + "b"),
        (check_lark, over_and_over("a [ b ]  ")),
        (check_lark, over_and_over('a[b]["[ ')),
        (check_lark, '"' + over_and_over('\\"')),
        (check_lark, "/" + over_and_over("\\/")),
        (check_lark, over_and_over("/a\n")),
        (check_lark, over_and_over("<a")),
        (check_lark, over_and_over("%a ")),
        (check_lark, over_and_over('%a{"b":')),
        (check_lark, "%json " + '{"' + over_and_over('\\"')),
        (check_lark, "a{1" + " " * LONG),
        (check_lark, "a{" + "1" * LONG),
        (check_lark, "a." + "1" * LONG),
        (check_lark, over_and_over("a-")),
        (check_lark, over_and_over("~  ")),
        (check_pattern, "[" * LONG),
        (check_pattern, over_and_over("[\\]")),
        (check_pattern, "{" + " " * LONG),
        (check_pattern, "{" + "1" * LONG),
        (check_pattern, "{1" + " " * LONG),
        (check_pattern, "{1," + " " * LONG),
        (check_pattern, "\\u{" + "a" * LONG),
        (check_pattern, over_and_over("(?i")),
        (check_pattern, "(" * LONG),
        (check_schema, {"pattern": "[" * LONG}),
        (check_schema, {"allOf": [{"$ref": f"#/{each}"} for each in SPELLINGS], "~" * 11: {"enum": ["a"] * 6000}}),
        (check_schema, {"anyOf": [{"$id": "a"}] * 250 + [{"$ref": f"{at}/a"} for at in range(3000)]}),
        (check_schema, {"anyOf": [{"$anchor": "a"}] * 250 + [{"$ref": "#a"}] * 4000}),
        (check_schema, {"anyOf": [{"$anchor": "a"}, {"$ref": "#a"}] * 2200}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_no_text_takes_longer_to_look_at_than_its_length_says(check: Callable[[Any], None], text: Any) -> None:
    began = time.thread_time()
    with suppress(BadSchema):
        check(text)
    assert time.thread_time() - began < 5  # where each character looks at all that follow it takes minutes
