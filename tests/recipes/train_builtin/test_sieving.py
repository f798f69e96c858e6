"""Sieving: what is trained on is what the network does not foretell yet, each row once, as it came."""

from __future__ import annotations

import numpy as np

from recipes.train_builtin import packing, sieving
from recipes.train_builtin.packing import SEGMENT, Segment
from recipes.train_builtin.sieving import Sieve

WIDTH = 256
ROWS = SEGMENT // WIDTH
ANSWER = 40


def segment(first: int) -> Segment:
    """Rows that begin with their numbers; their answers are the same everywhere."""
    generator = np.random.default_rng(first)
    made = (packing.row([([4 + first + row, 9, 9], [7] * ANSWER)], in_prompt=0) for row in range(ROWS))
    rows = [(ids + [8] * (WIDTH - len(ids)), weights + [0] * (WIDTH - len(weights))) for ids, weights in made]
    return next(packing.segments(iter(rows), generator))


def rows_of(sieved: Segment) -> list[int]:
    return [int(number) - 4 for number in sieved.ids.reshape(-1, WIDTH)[:, 0]]


class Judge:
    """Says of rows by their numbers how many of their tokens are foretold wrongly."""

    def __init__(self, wrong: dict[int, int]) -> None:
        self.wrong = wrong

    def __call__(self, one: Segment) -> np.ndarray:
        found = np.zeros(len(one.places), bool)
        for at, number in enumerate(rows_of(one)):
            places = np.flatnonzero((one.places // WIDTH == at) & (one.weights > 0))
            found[places[: self.wrong.get(number, 0)]] = True
        return found


def test_rows_with_a_few_wrong_tokens_pass_and_those_that_are_right_or_hopeless_hardly_do(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sieving, "KEPT", 0.0)
    hard = {number for number in range(10 * ROWS) if number % 5 == 0}
    hopeless = {number for number in range(10 * ROWS) if number % 5 == 1}
    sieve = Sieve(Judge(dict.fromkeys(hard, 3) | dict.fromkeys(hopeless, 30)), 1)
    passed = [sieve.push(segment(first)) for first in range(0, 10 * ROWS, ROWS)]
    rows = [row for one in passed if one is not None for row in rows_of(one)]
    assert len(rows) == 2 * ROWS and len(set(rows)) == len(rows), "a fifth of ten segments is two, each row once"
    assert set(rows) <= hard
    assert (sieve.seen, sieve.passed) == (10 * ROWS, 2 * ROWS)


def test_some_of_what_is_known_is_kept_so_that_it_is_not_forgotten() -> None:
    sieve = Sieve(Judge({}), 1)
    for first in range(0, 40 * ROWS, ROWS):
        sieve.push(segment(first))
    assert 0.03 < sieve.passed / sieve.seen < 0.1


def test_a_row_that_passes_counts_as_it_did() -> None:
    came = segment(0)
    (passed,) = [one for one in [Sieve(Judge(dict.fromkeys(range(ROWS), 1)), 1).push(came)] if one is not None]
    assert np.array_equal(passed.ids, came.ids)
    counts = dict(zip(came.places[came.weights > 0].tolist(), came.weights[came.weights > 0].tolist(), strict=True))
    again = dict(zip(passed.places.tolist(), passed.weights.tolist(), strict=True))
    assert counts == {place: weight for place, weight in again.items() if weight}
