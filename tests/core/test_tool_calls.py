"""Calls of tools are read out of a text while it is drawn: each as soon as it is certain, none to be taken back."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.core.output_format import ToolStyle
from parrot_compat.core.tool_calls import CallPiece, ToolReader, whole_calls

CALL = '{"name": "add", "arguments": {"a": 1, "b": "é"}}'
ARGUMENTS = '{"a": 1, "b": "é"}'
LLAMA = CALL.replace("arguments", "parameters")
TEXTS: list[tuple[ToolStyle, str, str | None, int]] = [
    # style, text, what of it is said (`None`: all), calls
    ("hermes", f"<tool_call>\n{CALL}\n</tool_call>", "", 1),
    ("hermes", f"I add. \n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{CALL}</tool_call>", "I add.", 2),
    ("hermes", "a < b, <tool_ and nothing else \n", "a < b, <tool_ and nothing else \n", 0),
    ("hermes", "<tool_call>\nno json\n</tool_call>", "<tool_call>\nno json\n</tool_call>", 0),
    ("hermes", "<tool_call></tool_call>", "<tool_call></tool_call>", 0),
    ("hermes", f"<tool_call>\n{CALL}", "", 1),
    ("hermes", f"<tool_call>\n{CALL}\n</tool_ca", "", 1),
    ("hermes", f"<tool_call>[{CALL}, {CALL}]</tool_call>", "", 2),
    ("hermes", f"<tool_call>{CALL}}}</tool_call> Done. ", "Done.", 1),
    ("hermes", f"<tool_call>{CALL} I mean it.</tool_call>", "I mean it.</tool_call>", 1),
    ("hermes", '<tool_call>{"name": 1, "arguments": {}}', '<tool_call>{"name": 1, "arguments": {}}', 0),
    ("hermes", '<tool_call>{"name": "a", "arguments": "b"}', '<tool_call>{"name": "a", "arguments": "b"}', 0),
    ("hermes", '<tool_call>{"arguments": {"a": 1, "b": "é"}, "name": "add"}</tool_call>', "", 1),
    ("hermes", f'<tool_call>{CALL[:-1]}, "id": 7}}</tool_call>', "", 1),
    ("hermes", f"<tool_call>{CALL[:-1]}</tool_call>\n<tool_call>{CALL}</tool_call>", "", 2),
    ("hermes", f"<tool_call>{CALL[:-1]}\n</tool_call> Done.", "Done.", 1),
    ("llama3_json", f"{LLAMA[:-1]}; {LLAMA}", "", 2),
    ("llama3_json", f'{LLAMA[:-1]}"}}; {LLAMA}', "", 2),
    ("mistral", f'[{CALL[:-1]}"}}, {CALL}]', "", 2),
    ("hermes", f"<tool_call>{CALL[:-1]})}}</tool_call> Done.", "Done.", 1),
    ("llama3_json", LLAMA, "", 1),
    ("llama3_json", f"<|python_tag|>{LLAMA}; {LLAMA}", "", 2),
    ("llama3_json", f"{LLAMA} and so on ", "and so on ", 1),
    ("llama3_json", '{"a": 1}', '{"a": 1}', 0),
    ("llama3_json", ' {"title": "a", "name": "b", "parameters": {}}', None, 0),
    ("llama3_json", '{"name": "add"', '{"name": "add"', 0),
    ("llama3_json", "<|python_tag|>print(1)", "<|python_tag|>print(1)", 0),
    ("llama3_json", f"No: {LLAMA}", f"No: {LLAMA}", 0),
    ("mistral", f"[TOOL_CALLS] [{CALL}, {CALL}]", "", 2),
    ("mistral", f"[{CALL}]", "", 1),
    ("mistral", "[1] is a footnote", "[1] is a footnote", 0),
    ("mistral", "[TOOL_CALLS", "[TOOL_CALLS", 0),
    ("mistral", f"I add. [TOOL_CALLS] [{CALL}, {CALL}]", "I add.", 2),
    ("mistral", "Hello", "Hello", 0),
    ("granite", f"<|tool_call|>[{CALL}]", "", 1),
    ("granite", f"<|tool_call|> [{CALL}, {CALL}]<|/tool_call|>", "", 2),
    ("granite", f"<tool_call>[{CALL}]", "", 1),
    ("granite", f"[{CALL}]", "", 1),
    ("granite", f"I add. <|tool_call|>[{CALL}]<|/tool_call|> Done. ", "I add. Done.", 1),
    ("granite", f"<|tool_call|>[{CALL}, {CALL}]<|/tool_ca", "", 2),
    ("granite", "<|tool_call|>[]", "<|tool_call|>[]", 0),
    ("granite", "<|tool_call|>print(1)<|/tool_call|>", "<|tool_call|>print(1)<|/tool_call|>", 0),
    ("granite", "a <| and <|tool", "a <| and <|tool", 0),
    ("mistral_args", f"[TOOL_CALLS]add[ARGS]{ARGUMENTS}", "", 1),
    ("mistral_args", f"[TOOL_CALLS]add[ARGS]{ARGUMENTS}[TOOL_CALLS]add[ARGS]{ARGUMENTS}", "", 2),
    ("mistral_args", f"I add. [TOOL_CALLS] add[CALL_ID]a1b2c3d4e[ARGS] {ARGUMENTS} Done. ", "I add.Done.", 1),
    ("mistral_args", f"[TOOL_CALLS]add{ARGUMENTS}}}\n[TOOL_CALLS]my.tool_2-x[ARGS]{ARGUMENTS}", "", 2),
    ("mistral_args", f"[TOOL_CALLS]add to it[ARGS]{ARGUMENTS}", None, 0),
    ("mistral_args", f"[TOOL_CALLS]add[CALL_ID][ARGS]{ARGUMENTS}", None, 0),
    ("mistral_args", f"[TOOL_CALLS]add[ARGS][{ARGUMENTS}]", None, 0),
    ("mistral_args", f"[TOOL_CALLS][ARGS]{ARGUMENTS}", None, 0),
    ("mistral_args", "[TOOL_CALLS]add[ARGS]", "[TOOL_CALLS]add[ARGS]", 0),
    ("mistral_args", "a [1] and [TOOL_CALLS", "a [1] and [TOOL_CALLS", 0),
]
MARKS: list[tuple[ToolStyle, str]] = [
    ("hermes", f"<tool_call>\n{CALL}\n</tool_call>"),
    ("llama3_json", LLAMA),
    ("mistral", f"[TOOL_CALLS][{CALL}]"),
    ("mistral_args", f"[TOOL_CALLS]add[ARGS]{ARGUMENTS}"),
    ("granite", f"<|tool_call|>[{CALL}]<|/tool_call|>"),
]
FRAGMENTS = (
    *("[ARGS]", "[CALL_ID]", "a1b2c3d4e", "add", "add[ARGS]{}"),
    *(
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "<|tool_call|>",
        CALL,
        '"name": "add"',
        '"arguments": {',
    ),
    *('"x": 2', "{", "}", "[", "]", ",", ":", ";", " ", "\n", '"', "\\", "a", "<"),
)
STYLES: tuple[ToolStyle, ...] = ("hermes", "llama3_json", "mistral", "mistral_args", "granite", "qwen3_coder")


def read(style: ToolStyle, pieces: list[str], is_parallel: bool = True) -> tuple[str, list[tuple[str, str]]]:
    """What is said, and the calls."""
    reader = ToolReader(style, is_parallel)
    said = [reader.push(piece)[0] for piece in pieces]
    said.append(reader.end()[0])
    return "".join(said), [(call.name, call.arguments) for call in reader.calls]


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.parametrize(("style", "text", "said", "calls"), TEXTS)
def test_calls_are_told_from_text(style: ToolStyle, text: str, said: str | None, calls: int) -> None:
    reader = ToolReader(style)
    assert reader.push(text)[0] + reader.end()[0] == (text if said is None else said)
    assert [json.loads(call.arguments) for call in reader.calls] == [{"a": 1, "b": "é"}] * calls
    assert len({call.id for call in reader.calls}) == calls


@given(which=st.sampled_from(TEXTS), cuts=st.lists(st.integers(0, 120), max_size=20))
def test_how_a_text_is_cut_changes_nothing(which: tuple[ToolStyle, str, str | None, int], cuts: list[int]) -> None:
    style, text, said, calls = which
    told, read_calls = read(style, cut(text, cuts))
    assert told == (text if said is None else said) and len(read_calls) == calls


@given(
    style=st.sampled_from(STYLES),
    fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=16),
    cuts=st.lists(st.integers(0, 120), max_size=20),
)
def test_nor_does_it_with_any_text_however_broken(style: ToolStyle, fragments: list[str], cuts: list[int]) -> None:
    text = "".join(fragments)
    assert read(style, cut(text, cuts)) == read(style, [text])


@pytest.mark.parametrize(("style", "text"), MARKS)
def test_a_call_is_named_once_it_is_certain_and_its_arguments_are_told_as_they_are_drawn(
    style: ToolStyle, text: str
) -> None:
    reader, pieces = ToolReader(style), list[CallPiece]()
    begins = text.index(ARGUMENTS)
    for place, character in enumerate(text):
        pieces += reader.push(character)[1]
        assert bool(pieces) == (place >= begins)
        drawn = text[begins : place + 1] if place >= begins else ""
        assert "".join(piece.arguments for piece in pieces) == drawn[: len(ARGUMENTS)]
    assert [piece.name for piece in pieces] == ["add", *[None] * (len(ARGUMENTS) - 1)]
    assert [piece.id is None for piece in pieces] == [False, *[True] * (len(ARGUMENTS) - 1)]
    (call,) = whole_calls(pieces)
    assert (call.name, call.arguments, call.id) == ("add", ARGUMENTS, pieces[0].id)


@pytest.mark.parametrize("style", STYLES)
def test_text_that_is_no_call_is_said_at_the_first_character_that_shows_it(style: ToolStyle) -> None:
    for begun, shows in (('{"a"', "x"), ('{"title"', ":"), ("Hello", ""), ("[1", "]")):
        reader = ToolReader(style)
        assert reader.push(begun)[0] + reader.push(shows)[0] == begun + shows


def test_a_call_that_is_cut_off_keeps_what_there_is_of_it() -> None:
    reader = ToolReader("hermes")
    reader.push('<tool_call>\n{"name": "add", "arguments": {"a": "x')
    assert reader.end() == ("", []) and reader.is_cut
    assert [(call.name, call.arguments) for call in reader.calls] == [("add", '{"a": "x')]


@pytest.mark.parametrize(("style", "text"), MARKS)
def test_where_one_call_is_wanted_the_first_is_the_end(style: ToolStyle, text: str) -> None:
    begun = "I add. " if style in ("hermes", "mistral_args") else ""
    reader = ToolReader(style, is_parallel=False)
    said = reader.push(f"{begun}{text}; {text} Done.")[0] + reader.end()[0]
    assert said == begun.strip() and reader.is_over
    assert [call.name for call in reader.calls] == ["add"]
    assert not ToolReader(style, is_parallel=False).is_over


def test_ids_are_what_each_familys_templates_take() -> None:
    for style, text in MARKS:
        reader = ToolReader(style)
        reader.push(text)
        (call,) = reader.calls
        assert (len(call.id) == 9 and call.id.isalnum()) if style.startswith("mistral") else call.id.startswith("call_")


def test_an_id_that_the_model_has_written_is_the_calls_if_it_is_a_usual_one_and_new() -> None:
    reader = ToolReader("mistral_args")
    for id in ("a1b2c3d4e", "a1b2c3d4e", "short", "F00000009"):
        reader.push(f"[TOOL_CALLS]add[CALL_ID]{id}[ARGS]{{}}")
    ids = [call.id for call in reader.calls]
    assert (ids[0], ids[3]) == ("a1b2c3d4e", "F00000009")
    assert len(set(ids)) == 4 and all(len(id) == 9 and id.isalnum() for id in ids)


@pytest.mark.parametrize(("style", "text"), MARKS)
def test_a_call_of_a_tool_that_may_not_be_called_is_text(style: ToolStyle, text: str) -> None:
    for names, calls in ((["add"], 1), (["now"], 0), ([], 0)):
        reader = ToolReader(style, names=names)
        said = "".join(reader.push(character)[0] for character in text) + reader.end()[0]
        assert (said, len(reader.calls)) == ("" if calls else text, calls)


def test_nor_is_it_a_call_where_the_arguments_come_first() -> None:
    text = '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>'
    assert read("hermes", [text]) == ("", [("add", '{"a": 1}')])
    reader = ToolReader("hermes", names=["now"])
    assert reader.push(text)[0] + reader.end()[0] == text and not reader.calls


@pytest.mark.parametrize(
    ("style", "quoted"),
    [
        ("mistral_args", '[TOOL_CALLS]add[ARGS]{"a": 1}'),
        ("mistral_args", "[TOOL_CALLS"),
        ("hermes", f"<tool_call>{CALL}</tool_call>"),
        ("mistral", f"[TOOL_CALLS] [{CALL}]"),
        ("granite", f"<|tool_call|>[{CALL}]"),
        ("qwen3_coder", "<function=add></function>"),
    ],
)
def test_where_calls_come_first_json_may_quote_one(style: ToolStyle, quoted: str) -> None:
    for text in (f'{{"raw": "{quoted}"}}', f' {{"raw": "{quoted}'):
        for size in (1, 3, 1000):
            reader = ToolReader(style, is_first=True)
            said = "".join(reader.push(text[at : at + size])[0] for at in range(0, len(text), size)) + reader.end()[0]
            assert said == text and not reader.calls


@pytest.mark.parametrize("style", ["hermes", "mistral_args", "mistral", "granite", "qwen3_coder"])
def test_where_calls_come_first_there_may_be_several(style: ToolStyle) -> None:
    texts = {
        "hermes": f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>",
        "mistral_args": f"[TOOL_CALLS]add[ARGS]{ARGUMENTS}[TOOL_CALLS]add[ARGS]{ARGUMENTS}",
        "mistral": f"[TOOL_CALLS] [{CALL}, {CALL}]",
        "granite": f"<|tool_call|>[{CALL}, {CALL}]",
        "qwen3_coder": "<tool_call>\n<function=add>\n</function>\n</tool_call>\n" * 2,
    }
    for size in (1, 1000):
        reader, text = ToolReader(style, is_first=True), texts[style]
        said = "".join(reader.push(text[at : at + size])[0] for at in range(0, len(text), size)) + reader.end()[0]
        assert said == "" and [call.name for call in reader.calls] == ["add", "add"]
