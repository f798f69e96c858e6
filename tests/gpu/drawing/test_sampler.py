"""The sampler against Hugging Face's logits processors, and its random numbers."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.errors import EngineError
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.sampler import UNUSABLE, filter_scores, likeliest, sample, uniform
from tests.gpu.drawing.drawn import drawn_tokens

VOCABULARY = 50
Filters = tuple[float, int, float, float]
"""temperature, top_k, top_p, min_p"""

filters = st.tuples(
    st.sampled_from([0.1, 0.7, 1.0, 1.7]),
    st.sampled_from([0, 1, 2, 5, 49, 50, 1000]),
    st.sampled_from([1.0, 0.95, 0.5, 0.1, 0.0]),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
)


def hugging_face(logits: Tensor, chosen: Filters) -> Tensor:
    """The processors that `generate` builds for these values, in its order."""
    temperature, top_k, top_p, min_p = chosen
    processors = LogitsProcessorList()
    if temperature != 1.0:
        processors.append(TemperatureLogitsWarper(temperature))
    if top_k != 0:
        processors.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        processors.append(TopPLogitsWarper(top_p))
    if min_p != 0.0:
        processors.append(MinPLogitsWarper(min_p))
    kept: Tensor = processors(torch.zeros(1, 1, dtype=torch.long), logits[None])[0]
    return kept


def draw(index: int = 0, **values: object) -> Draw:
    return Draw(sampling=ResolvedSampling(**{"max_tokens": 100, **values}), index=index)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, -0.0, 1.0, 1.0, -3.5, math.inf, -math.inf, math.nan]), min_size=33, max_size=33),
        min_size=1,
        max_size=4,
    )
)
def test_the_likeliest_is_the_lowest_of_equals_and_none_where_it_is_not_finite(rows: list[list[float]]) -> None:
    tokens = likeliest(torch.tensor(rows)).tolist()
    assert tokens == likeliest(torch.tensor(rows).double()).tolist(), "as torch does it elsewhere"
    for row, token in zip(rows, tokens, strict=True):
        has_nan = any(map(math.isnan, row))
        assert token == (UNUSABLE if has_nan or not math.isfinite(max(row)) else row.index(max(row)))


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(filters, min_size=1, max_size=6), seed=st.integers(0, 1000), ties=st.booleans())
def test_filtered_probabilities_equal_hugging_face_row_by_row(rows: list[Filters], seed: int, ties: bool) -> None:
    logits = torch.randn(len(rows), VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3
    if ties:
        logits = logits.round()
    temperatures, top_ks, top_ps, min_ps = zip(*rows, strict=True)

    ours = filter_scores(logits, temperatures=temperatures, top_ks=top_ks, top_ps=top_ps, min_ps=min_ps)

    for row, chosen in enumerate(rows):
        assert torch.equal(ours[row].softmax(-1), hugging_face(logits[row], chosen).softmax(-1)), chosen


def test_draws_follow_the_filtered_distribution() -> None:
    torch.manual_seed(0)
    logits = torch.randn(12) * 1.5
    expected = hugging_face(logits, (0.8, 8, 0.9, 0.02)).softmax(-1)
    draws = [draw(index, temperature=0.8, top_k=8, top_p=0.9, min_p=0.02, seed=3) for index in range(20_000)]

    counts = torch.bincount(torch.tensor(drawn_tokens(logits.expand(len(draws), -1), draws, ())), minlength=12)

    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    chi_square = (((counts - expected * len(draws)) ** 2)[kept] / (expected * len(draws))[kept]).sum()
    assert chi_square < 30  # 7 degrees of freedom at most: a true sampler exceeds this once in 10 000 seeds


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[0, [31, 7, 40]] = 5.0

    assert drawn_tokens(logits, [draw(), draw()], ()) == [7, 0]


def test_a_temperature_close_to_zero_is_greedy() -> None:
    torch.manual_seed(1)
    logits = torch.randn(1, VOCABULARY) * 100

    assert drawn_tokens(logits, [draw(temperature=1e-9, seed=5)], ()) == [int(logits.argmax())]


def test_a_draw_is_a_function_of_seed_and_index_whatever_its_neighbours() -> None:
    torch.manual_seed(2)
    logits = torch.randn(40, VOCABULARY)
    draws = [
        draw(
            index, seed=row % 3, temperature=0.0 if row % 4 == 0 else 1.0 + row / 40, top_p=1 - row / 100, top_k=row % 7
        )
        for index, row in enumerate(range(40))
    ]
    together = drawn_tokens(logits, draws, ())

    assert together == drawn_tokens(logits, draws, ())
    assert [drawn_tokens(logits[row : row + 1], [draws[row]], ())[0] for row in range(40)] == together
    backwards = list(reversed(range(40)))
    assert drawn_tokens(logits[backwards], [draws[row] for row in backwards], ()) == together[::-1]


def test_another_seed_or_index_is_another_number() -> None:
    numbers = {uniform(seed, index) for seed in range(-50, 50) for index in range(100)}
    numbers |= {uniform(seed, 0) for seed in (2**63, 2**64 - 60, 10**30)}

    assert len(numbers) == 100 * 100 + 3
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert uniform(7, 3) == uniform(7, 3)


def test_random_numbers_are_even_along_indices_and_along_seeds() -> None:
    for numbers in ([uniform(1, index) for index in range(10_000)], [uniform(seed, 1) for seed in range(10_000)]):
        assert abs(fmean(numbers) - 0.5) < 0.015
        pairs = fmean((a - 0.5) * (b - 0.5) for a, b in pairwise(numbers))
        assert abs(pairs) < 0.004
        for tenth in range(10):
            assert 850 < sum(tenth <= number * 10 < tenth + 1 for number in numbers) < 1150


def test_the_random_numbers_never_change_between_versions() -> None:
    """Replay after an upgrade must reproduce a text: these are splitmix64's, written down once."""
    assert [uniform(0, 0), uniform(0, 1), uniform(42, 7)] == [
        0.6524484863740322,
        0.7012121095215252,
        0.7347204584623639,
    ]


def test_before_min_tokens_neither_end_of_sequence_nor_stop_tokens_are_drawn() -> None:
    logits = torch.zeros(4, VOCABULARY)
    logits[:, [3, 9, 12]] = torch.tensor([30.0, 20.0, 10.0])
    before = {"min_tokens": 2, "stop_token_ids": (9,)}
    draws = [draw(0, **before), draw(1, **before, temperature=1.0), draw(2, **before), draw(0)]

    assert drawn_tokens(logits, draws, [3]) == [12, 12, 3, 3]


def test_ignore_eos_bans_nothing() -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 3] = 30.0

    assert drawn_tokens(logits, [draw(ignore_eos=True)], [3]) == [3]


def test_a_stop_token_outside_the_vocabulary_bans_nothing() -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 3] = 30.0

    assert drawn_tokens(logits, [draw(min_tokens=1, stop_token_ids=(VOCABULARY, 10**6))], []) == [3]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_from_logits_that_are_no_numbers_nothing_is_drawn_and_from_those_beside_them_what_always_is(
    broken: float, temperature: float
) -> None:
    logits = torch.zeros(3, VOCABULARY)
    whole = sample(logits, [draw(temperature=temperature)] * 3, ()).tolist()
    logits[1, 17] = broken

    assert sample(logits, [draw(temperature=temperature)] * 3, ()).tolist() == [whole[0], UNUSABLE, whole[2]]


def test_banning_the_whole_vocabulary_is_an_error() -> None:
    with pytest.raises(EngineError, match="all excluded"):
        drawn_tokens(torch.zeros(1, 4), [draw(min_tokens=1, stop_token_ids=(1, 2, 3))], [0])


def test_half_precision_logits_are_drawn_from_in_full_precision() -> None:
    torch.manual_seed(3)
    logits = torch.randn(8, VOCABULARY).to(torch.bfloat16)
    draws = [draw(row, temperature=0.9, top_p=0.8, seed=1) for row in range(8)]

    assert drawn_tokens(logits, draws, ()) == drawn_tokens(logits.float(), draws, ())


def test_the_smallest_and_the_largest_random_number_pick_tokens_that_were_kept() -> None:
    """No seed may ever reach a token that a filter dropped, at either end of the vocabulary."""
    logits = torch.full((1, VOCABULARY), 0.0)
    logits[0, 0] = logits[0, -1] = -40.0
    seeds = sorted(range(3000), key=lambda seed: uniform(seed, 0))
    ends = [*seeds[:3], *seeds[-3:]]
    tokens = drawn_tokens(logits.expand(6, -1), [draw(temperature=1.0, top_p=0.99, seed=seed) for seed in ends], ())

    assert set(tokens[:3]) == {1} and set(tokens[3:]) == {VOCABULARY - 2}
