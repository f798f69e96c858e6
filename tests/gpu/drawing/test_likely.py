"""The short ways to the likely tokens of a row give what the long ones do, or say nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import TopPLogitsWarper

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.likely import CANDIDATES, Scores, token_at, top_p_cut
from parrot_compat.gpu.drawing.sampler import filter_scores, uniform
from tests.gpu.drawing.drawn import drawn_tokens

SIZE = 5 * CANDIDATES


def drawn_scores(seed: int, spread: float) -> Scores:
    scores: Scores = (np.random.default_rng(seed).standard_normal(SIZE) * spread).astype(np.float32)
    return scores


def hugging_face(scores: Scores, top_p: float) -> Tensor:
    kept: Tensor = TopPLogitsWarper(top_p)(torch.zeros(1, 1, dtype=torch.long), torch.from_numpy(scores)[None])[0]
    return kept


def filtered(scores: Scores, top_p: float) -> Tensor:
    rows = torch.from_numpy(scores)[None]
    return filter_scores(rows, temperatures=[1.0], top_ks=[0], top_ps=[top_p], min_ps=[0.0])[0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.1, 1.0, 3.0, 12.0]),
    top_p=st.sampled_from([0.0, 0.3, 0.8, 0.95, 0.999, 1 - 1e-7]),
    ties=st.booleans(),
    few=st.booleans(),
)
def test_top_p_keeps_what_it_keeps_of_a_sorted_vocabulary(
    seed: int, spread: float, top_p: float, ties: bool, few: bool
) -> None:
    scores = drawn_scores(seed, spread)
    if ties:
        scores = scores.round()
    if few:
        scores[20:] = -np.inf
    expected = hugging_face(scores, top_p)

    assert torch.equal(filtered(scores, top_p), expected)
    if (cut := top_p_cut(scores, top_p)) is not None:
        assert np.array_equal((scores >= cut) & np.isfinite(scores), expected.numpy() > -np.inf)


def test_most_rows_need_not_be_sorted() -> None:
    cuts = [top_p_cut(drawn_scores(seed, 3.0), top_p) for seed in range(25) for top_p in (0.8, 0.9, 0.95)]

    assert sum(cut is None for cut in cuts) < len(cuts) // 4


@pytest.mark.parametrize("seed", range(5))
def test_where_rounding_decides_nothing_is_said_without_sorting(seed: int) -> None:
    scores = drawn_scores(seed, 3.0)
    cumulative = torch.from_numpy(scores).sort().values.softmax(-1).cumsum(-1)
    for place in (SIZE - 2, SIZE - 10, SIZE - 100):
        top_p = 1.0 - float(cumulative[place])
        assert top_p_cut(scores, top_p) is None
        assert torch.equal(filtered(scores, top_p), hugging_face(scores, top_p))


def test_of_equal_scores_at_the_cut_sorting_says_which_are_kept() -> None:
    scores = np.full(SIZE, -30.0, dtype=np.float32)
    scores[:10] = 0.0

    assert top_p_cut(scores, 0.55) is None
    assert top_p_cut(scores, 0.999) == 0.0


def test_a_row_that_cannot_be_drawn_from_is_left_to_the_long_way() -> None:
    for bad in (np.nan, np.inf):
        scores = drawn_scores(0, 1.0)
        scores[7] = bad
        assert top_p_cut(scores, 0.9) is None
    assert token_at(np.full(9, -np.inf, dtype=np.float32), 0.5) is None
    assert token_at(np.array([0.0, np.inf], dtype=np.float32), 0.5) is None


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.sampled_from([0.1, 3.0, 12.0]), top_p=st.sampled_from([0.2, 0.9, 0.999]))
def test_the_token_drawn_is_that_of_the_whole_distribution_added_up(seed: int, spread: float, top_p: float) -> None:
    scores = drawn_scores(seed, spread)
    cumulative = hugging_face(scores, top_p).double().softmax(-1).cumsum(-1)
    draws = [Draw(sampling=ResolvedSampling(max_tokens=99, temperature=1.0, top_p=top_p), index=i) for i in range(20)]
    expected = [int(torch.searchsorted(cumulative, uniform(0, i) * cumulative[-1], right=True)) for i in range(20)]

    assert drawn_tokens(torch.from_numpy(scores).expand(20, -1), draws, ()) == expected


def test_at_the_border_between_two_tokens_nothing_is_said_without_adding_up() -> None:
    scores = np.zeros(4, dtype=np.float32)

    assert [token_at(scores, number) for number in (0.1, 0.3, 0.7)] == [0, 1, 2]
    assert [token_at(scores, number) for number in (0.25, 0.5 - 1e-12, 1 - 1e-12)] == [None, None, None]
