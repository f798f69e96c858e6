"""Text of a length, never the same prefix twice."""

from __future__ import annotations

from itertools import combinations

import pytest

from recipes.benchmarks.checkpoints import folder
from recipes.benchmarks.text import FreshText, open_tokenizer


def fresh(seed: str) -> FreshText:
    return FreshText(open_tokenizer(folder("builtin:tiny")), seed)


@pytest.mark.parametrize("tokens", [1, 4, 16, 300, 5107])
def test_a_passage_has_the_tokens_that_were_asked_for(tokens: int) -> None:
    text = fresh("lengths")
    assert abs(text.count(text.passage(tokens)) - tokens) <= 1


def test_the_same_seed_is_the_same_text() -> None:
    one, other = fresh("a seed"), fresh("a seed")
    assert [one.passage(50) for _ in range(3)] == [other.passage(50) for _ in range(3)]


def test_two_passages_share_no_prefix() -> None:
    tokenizer = open_tokenizer(folder("builtin:tiny"))
    passages = [fresh(f"round {number}").passage(64) for number in range(12)]
    text = fresh("one of them")
    passages += [text.passage(64) for _ in range(12)]
    for one, other in combinations([tokenizer.encode(passage).ids for passage in passages], 2):
        assert one[:8] != other[:8]
