"""Calls that a model writes as tags around plain text are read while they are drawn, and told as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.core.tool_calls import CallPiece, ToolReader

SCHEMAS: dict[str, Any] = {
    "add": {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "n": {"type": "integer"},
            "list": {"type": "array", "items": {"type": "string"}},
            "ok": {"type": "boolean"},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    },
    "now": {},
}


def tagged(**values: str) -> str:
    return "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in values.items())


def call(body: str, name: str = "add") -> str:
    return f"<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>"


CASES: list[tuple[str, str, list[tuple[str, str]]]] = [
    # text, what of it is said, calls
    (call(tagged(text="a", n="5")), "", [("add", '{"text": "a", "n": 5}')]),
    (call(""), "", [("add", "{}")]),
    (
        f"I add.\n{call(tagged(n='1'))}\n{call('', 'now')} Done. ",
        "I add. Done.",
        [("add", '{"n": 1}'), ("now", "{}")],
    ),
    (
        call(tagged(text='\n  if a < b:\n    print("é\\n")\n', ok="True", maybe="None")),
        "",
        [("add", r'{"text": "\n  if a < b:\n    print(\"é\\n\")\n", "ok": true, "maybe": null}')],
    ),
    # without line breaks, as other families write it
    (
        "<tool_call><function=add><parameter=text>a</parameter><parameter=n>5</parameter></function></tool_call>",
        "",
        [("add", '{"text": "a", "n": 5}')],
    ),
    (call(tagged(text="", n="")), "", [("add", '{"text": "", "n": ""}')]),
    ("<tool_call>\n<function=add>\n<parameter=text>\n</parameter>\n</function>", "", [("add", '{"text": ""}')]),
    (call(tagged(n="five", list="no list")), "", [("add", '{"n": "five", "list": "no list"}')]),
    (call(tagged(**{"no such": "5"})), "", [("add", '{"no such": "5"}')]),
    (call(tagged(text="5"), "unknown"), "", [("unknown", '{"text": "5"}')]),
    # tags within values
    (call(tagged(text="</function> <parameter=n> </")), "", [("add", '{"text": "</function> <parameter=n> </"}')]),
    (
        call(tagged(list='["</parameter>", "\\"</function></tool_call>"]')),
        "",
        [("add", '{"list": ["</parameter>", "\\"</function></tool_call>"]}')],
    ),
    (call('<parameter=list>["a"]</parameter>'), "", [("add", '{"list": ["a"]}')]),
    (call(tagged(list='["a')), "", [("add", '{"list": "[\\"a"}')]),
    # something is missing, or too much
    (f"So: \n<function=add>\n{tagged(n='1')}</function>\n</tool_call> Done.", "So: Done.", [("add", '{"n": 1}')]),
    (f"<function=add>\n{tagged(n='1')}</function>", "", [("add", '{"n": 1}')]),
    ("<tool_call>\n<function=add>\n<parameter=text>\na\n</function>\n</tool_call>", "", [("add", '{"text": "a"}')]),
    (f"<tool_call>\n<function=add>\n{tagged(n='1')}</tool_call>!", "!", [("add", '{"n": 1}')]),
    (f"<tool_call>\n<function=add>\n{tagged(n='1')}{call('', 'now')}", "", [("add", '{"n": 1}'), ("now", "{}")]),
    (
        "<tool_call>\n<function=add>\n</function>\n<function=now>\n</function>\n</tool_call>",
        "",
        [("add", "{}"), ("now", "{}")],
    ),
    (call(f"well <b> <parameter\n{tagged(n='1')} so "), "", [("add", '{"n": 1}')]),
    (f"<tool_call>\n<function=add>\n{tagged(n='1')}</func", "", [("add", '{"n": 1')]),
    (call(tagged(n="1"))[:-3], "", [("add", '{"n": 1}')]),
    # an object is a call here, too
    ('<tool_call>\n{"name": "add", "arguments": {"n": 1}}\n</tool_call>', "", [("add", '{"n": 1}')]),
    # none
    ("<function=unknown>\n</function>", "<function=unknown>\n</function>", []),
    ("It is written <function=NAME>. ", "It is written <function=NAME>. ", []),
    ("<tool_call>\n<function add>", "<tool_call>\n<function add>", []),
    ("<tool_call>\n<function=>", "<tool_call>\n<function=>", []),
    ("<tool_call>\n<function=a b>", "<tool_call>\n<function=a b>", []),
    ("<tool_call>\n<function=add", "<tool_call>\n<function=add", []),
    ("<tool_call>\n</tool_call>", "<tool_call>\n</tool_call>", []),
    ("a < b and <fun", "a < b and <fun", []),
]
FRAGMENTS = (
    *("<tool_call>", "</tool_call>", "<function=add>", "<function=", "</function>", "<parameter=text>", "add", ">"),
    *("<parameter=list>", "<parameter=", "</parameter>", "\n", '"', "[", "]", "1", " ", "<", "</", "{", "}", "é"),
)


def read(text: str, size: int = 1, **options: Any) -> tuple[str, list[tuple[str, str]], ToolReader]:
    reader = ToolReader("qwen3_coder", schemas=SCHEMAS, **options)
    said = "".join(reader.push(text[at : at + size])[0] for at in range(0, len(text), size)) + reader.end()[0]
    return said, [(one.name, one.arguments) for one in reader.calls], reader


@pytest.mark.parametrize(("text", "said", "calls"), CASES)
def test_calls_are_told_from_text_however_it_is_cut(text: str, said: str, calls: list[tuple[str, str]]) -> None:
    for size in (1, 2, 3, 7, 1000):
        assert read(text, size)[:2] == (said, calls)
    for place in range(1, len(text)):
        reader = ToolReader("qwen3_coder", schemas=SCHEMAS)
        told = reader.push(text[:place])[0] + reader.push(text[place:])[0] + reader.end()[0]
        assert (told, [(one.name, one.arguments) for one in reader.calls]) == (said, calls)


@given(fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=16), size=st.integers(1, 9))
def test_nor_does_it_matter_with_any_text_however_broken(fragments: list[str], size: int) -> None:
    text = "<tool_call>\n<function=add>" * (len(fragments) % 3 > 0) + "".join(fragments)
    assert read(text, size)[:2] == read(text, 1000)[:2]


@given(fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=16))
def test_a_call_whose_last_tag_has_come_is_json(fragments: list[str]) -> None:
    for _, arguments in read(call("".join(fragments)) + "\n</parameter></function>")[1]:
        assert isinstance(json.loads(arguments), dict)


def test_a_call_is_named_at_once_and_a_text_is_told_as_it_is_drawn() -> None:
    reader, pieces = ToolReader("qwen3_coder", schemas=SCHEMAS), list[CallPiece]()

    def told(text: str) -> str:
        found = reader.push(text)[1]
        pieces.extend(found)
        return "".join(piece.arguments for piece in found)

    assert told("<tool_call>\n<function=add") == "" and not pieces
    assert told(">") == "{" and (pieces[0].name, pieces[0].index) == ("add", 0) and pieces[0].id
    assert told("\n<parameter=text>") == '"text": "'
    assert [told(text) for text in ("\n", "a", " b", "\n", "c\n</para", "meters", "\n</parameter>")] == [
        *("", "a", " b", "", "\\nc", "\\n</parameters", '"')
    ]
    assert [told(text) for text in ("\n<parameter=n>\n", "1", "2", "\n</parameter", ">")] == [
        *("", "", "", ""),
        ', "n": 12',
    ]
    assert told("\n</function>") == "}" and not reader.is_cut
    assert {piece.name for piece in pieces[1:]} == {None}


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (tagged(text="a"), '{"text": "a"'),
        ("<parameter=text>\na\n</para", '{"text": "a'),
        ("<parameter=n>\n12", "{"),
        ("<parameter=te", "{"),
        ("", "{"),
    ],
)
def test_a_call_that_is_cut_off_keeps_what_there_is_of_it(text: str, arguments: str) -> None:
    said, calls, reader = read(f"<tool_call>\n<function=add>\n{text}")
    assert (said, calls) == ("", [("add", arguments)]) and reader.is_cut


def test_a_call_of_a_tool_that_may_not_be_called_is_text() -> None:
    text = call(tagged(n="1"))
    for names, calls in ((["add"], 1), (["now"], 0), ([], 0)):
        said, found, _ = read(text, names=names)
        assert (said, len(found)) == ("" if calls else text, calls)


def test_where_one_call_is_wanted_the_first_is_the_end() -> None:
    said, calls, reader = read(f"I add. {call(tagged(n='1'))} {call('')} Done.", is_parallel=False)
    assert (said, calls) == ("I add.", [("add", '{"n": 1}')]) and reader.is_over


def test_a_long_value_takes_time_that_grows_with_its_length() -> None:
    reader = ToolReader("qwen3_coder", schemas=SCHEMAS)
    reader.push("<tool_call>\n<function=add>\n<parameter=list>\n[")
    for _ in range(20_000):
        reader.push('"a </b> \\n",\n')
    reader.push('""]\n</parameter>\n</function>')
    assert len(json.loads(reader.calls[0].arguments)["list"]) == 20_001
