"""Equal work and equal answers, call by call."""

from __future__ import annotations

from recipes.benchmarks.equality import Equality, compare, wrong_lengths

from .made_cells import app, call, cell


def test_the_first_difference_is_told_from_what_follows_of_it() -> None:
    one = cell("a", 0, app("x", 1, call("1"), call("2", text="left"), call("3", prompt="read left")))
    other = cell("b", 0, app("x", 1, call("1"), call("2", text="right"), call("3", prompt="read right")))
    found = compare(one, other)
    assert found == Equality(calls=3, identical=1, differing=1, followers=1)
    assert found.share == 0.5


def test_calls_that_only_one_side_made_are_counted() -> None:
    one, other = cell("a", 0, app("x", 1, call("1"))), cell("b", 0, app("x", 1, call("1"), call("2")))
    assert compare(one, other) == compare(other, one) == Equality(calls=2, identical=1, alone=1)


def test_the_same_text_of_other_tokens_is_not_identical() -> None:
    one, other = cell("a", 0, app("x", 1, call("1"))), cell("b", 0, app("x", 1, call("1", tokens=5)))
    assert compare(one, other) == Equality(calls=1, unequal_counts=1)
    assert [wrong.output_tokens for wrong in wrong_lengths(other)] == [5]


def test_background_is_not_compared() -> None:
    one = cell("a", 0, app("x", 1, call("1")), app("y", 1, call("1", text="left"), group="background"))
    other = cell("b", 0, app("x", 1, call("1")), app("y", 1, call("1", text="right"), group="background"))
    assert compare(one, other).share == 1.0


def test_counts_add_up() -> None:
    assert Equality(calls=2, identical=2) + Equality(calls=1, alone=1) == Equality(calls=3, identical=2, alone=1)
