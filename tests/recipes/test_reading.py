from __future__ import annotations

from pathlib import Path

import pytest
from call_log import printable
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel
from reading import DEFAULT_TOPICS, cut, read_text

WORDS = FakeListChatModel(responses=["-"], custom_get_token_ids=lambda text: [0] * len(text.split()))
CHARACTERS = FakeListChatModel(responses=["-"], custom_get_token_ids=lambda text: [0] * len(text))


def test_paragraphs_stay_whole_where_they_fit() -> None:
    assert cut("one two\n\nthree\n\nfour five six", WORDS, 3) == ["one two\n\nthree", "four five six"]


def test_a_paragraph_that_is_too_long_is_cut_between_lines() -> None:
    assert cut("one two\nthree four\n\nfive", WORDS, 2) == ["one two", "three four", "five"]


@given(st.text(alphabet="ab \n", max_size=300), st.integers(1, 20))
def test_every_piece_fits_and_nothing_but_white_space_is_lost(text: str, tokens: int) -> None:
    pieces = cut(text, CHARACTERS, tokens)
    assert all(len(piece) <= tokens for piece in pieces)
    assert all(piece.strip() for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_every_python_has_the_default_chapters() -> None:
    assert len(read_text(None, DEFAULT_TOPICS)) > 10_000


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n")
    for file, topics, words in [
        (str(tmp_path / "none"), (), "cannot be read"),
        (str(tmp_path / "empty"), (), "no text"),
        (None, ("nonsense",), "execmodel"),
    ]:
        with pytest.raises(SystemExit, match=words):
            read_text(file, topics)


def test_what_a_model_says_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2Jb\rc\nd\x07é雪") == "a\ufffd[2Jb\ufffdc\nd\ufffdé雪"
