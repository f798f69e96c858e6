"""Every style of calls has a row, a checkpoint shows its own, and what may become a mark is held back."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.core.output_format import ToolStyle
from parrot_compat.core.tool_styles import TOOL_STYLES, held_back, shown_style


def test_every_style_has_a_row() -> None:
    assert set(TOOL_STYLES) == set(get_args(ToolStyle))


def test_only_a_style_that_is_told_amid_text_has_marks_to_show() -> None:
    assert {style: syntax.marks for style, syntax in TOOL_STYLES.items()} == {
        "granite": ("<|tool_call|>", "<tool_call>", "<|/tool_call|>"),
        "hermes": ("<tool_call>", "</tool_call>"),
        "llama3_json": (),
        "mistral": ("[TOOL_CALLS]",),
        "mistral_args": ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        "qwen3_coder": ("<tool_call>", "</tool_call>"),
    }


@pytest.mark.parametrize(
    ("template", "controls", "style"),
    [
        ("[TOOL_CALLS]", (), "mistral"),
        ("[TOOL_CALLS] [ARGS]", (), "mistral_args"),
        ("[TOOL_CALLS] <tool_call>", (), "mistral"),
        ("<tool_call> ipython parameters", ("[TOOL_CALLS]",), "hermes"),
        ("ipython parameters", ("[TOOL_CALLS]",), "llama3_json"),
        ("ipython", ("[TOOL_CALLS]",), "mistral"),
        ("", ("[TOOL_CALLS]", "[ARGS]"), "mistral_args"),
        ("respond with <|tool_call|> followed by a JSON list", (), "granite"),
        ("", ("<|tool_call|>", "<|/tool_call|>"), "granite"),
        ("<tool_call> <|tool|>", ("<|tool_call|>",), "hermes"),
        ("<tool_call>\n<function=' + name + '>", (), "qwen3_coder"),
        ("<tool_call>\n<function=", ("<|tool_call|>",), "qwen3_coder"),
        ("<seed:tool_call><function=", (), "hermes"),
        ("", ("<tool_call>", "<function="), "qwen3_coder"),
        ("", ("ipython", "parameters"), "hermes"),  # words of a template, not marks
        ("", (), "hermes"),
    ],
)
def test_a_checkpoint_shows_its_style(template: str, controls: tuple[str, ...], style: str) -> None:
    assert shown_style(template, controls) == style


@pytest.mark.parametrize(
    ("text", "held"),
    [("", 0), ("a", 0), ("a <", 2), ("a  <tool_", 8), ("a <tool_call>", 0), ("a < b", 0), ("a \n", 2), ("<", 1)],
)
def test_a_beginning_of_the_mark_is_held_back_with_the_space_before_it(text: str, held: int) -> None:
    assert held_back(text, "<tool_call>") == held_back(text, "<tool_call>", "<tool_b>") == held


def test_of_several_marks_the_one_that_is_begun_is_held_back() -> None:
    assert [held_back(text, "<tool_call>", "<function=") for text in ("a <func", "a <too", "a <x")] == [6, 5, 0]


@given(before=st.text("a <[", max_size=9), mark=st.sampled_from(sorted({row.mark for row in TOOL_STYLES.values()})))
def test_what_is_not_held_back_holds_no_beginning_of_a_mark(before: str, mark: str) -> None:
    for size in range(1, len(mark)):
        text = before + mark[:size]
        assert held_back(text, mark) >= size
