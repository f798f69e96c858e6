"""A token drawn from what top-k leaves is the one that filtering the whole vocabulary draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.drawing import sampler
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.few import TIES, drawn_of_few
from parrot_compat.gpu.drawing.likely import CANDIDATES
from parrot_compat.gpu.drawing.sampler import UNUSABLE, sample, uniform
from tests.gpu.drawing.computed import Computed

NUMBERS = [uniform(3, index) for index in range(24)]


def sampling(**values: Any) -> ResolvedSampling:
    return ResolvedSampling(**({"max_tokens": 99, "temperature": 1.0, "top_k": 20, "seed": 3} | values))


def shortly(scores: Tensor, one: ResolvedSampling) -> list[int | None]:
    """What one row draws at each of the numbers."""
    return drawn_of_few(scores.expand(len(NUMBERS), -1), [one] * len(NUMBERS), NUMBERS)


def by_the_whole_vocabulary(scores: Tensor, one: ResolvedSampling) -> list[int]:
    draws = [Draw(sampling=one, index=index) for index in range(len(NUMBERS))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "drawn_of_few", lambda scores, samplings, numbers: [None] * len(samplings))
        drawn: list[int] = sample(scores.expand(len(NUMBERS), -1), draws, ()).tolist()
    return drawn


def compared(scores: Tensor, one: ResolvedSampling) -> int:
    """How many of the draws were known shortly; these are the same."""
    ours, whole = shortly(scores, one), by_the_whole_vocabulary(scores, one)
    assert [token for token in ours if token is not None] == [
        token for token, mine in zip(whole, ours, strict=True) if mine is not None
    ], one
    return sum(token is not None for token in ours)


def logits(seed: int, spread: float, size: int = 4000) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([2, 40, CANDIDATES - 1, CANDIDATES, 4000]),
    spread=st.sampled_from([0.01, 1.0, 3.0, 12.0, 60.0]),
    temperature=st.sampled_from([0.05, 0.7, 1.0, 1.7]),
    top_k=st.sampled_from([1, 2, 5, 20, 39, CANDIDATES - TIES, CANDIDATES - 1, CANDIDATES, 10_000]),
    top_p=st.sampled_from([1.0, 1 - 1e-7, 0.999, 0.8, 0.5, 0.1, 1e-6, 0.0]),
    min_p=st.sampled_from([0.0, 1e-30, 1e-6, 0.05, 0.3, 1.0]),
    kind=st.sampled_from(["float32", "bfloat16", "ties", "few", "nearly"]),
)
def test_the_token_is_that_of_the_whole_vocabulary(
    seed: int, size: int, spread: float, temperature: float, top_k: int, top_p: float, min_p: float, kind: str
) -> None:
    scores = logits(seed, spread, size)
    if kind == "bfloat16":
        scores = scores.bfloat16().float()
    elif kind == "ties":
        scores = scores.round()
    elif kind == "few":
        scores[torch.arange(size) % 97 != 1] = -math.inf
    elif kind == "nearly":  # neighbours in float32, which a temperature may make equal
        scores = torch.nextafter(torch.ones(size), torch.tensor(2.0)).where(scores > 0, torch.ones(size))
    compared(scores, sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p))


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 0.98), (torch.bfloat16, 0.5)])
def test_most_draws_need_no_look_at_the_whole_vocabulary(dtype: torch.dtype, least: float) -> None:
    one = sampling(temperature=0.7, top_p=0.8, min_p=0.01)
    known = [compared(logits(seed, 3.0).to(dtype).float(), one) for seed in range(40)]
    assert sum(known) >= least * 40 * len(NUMBERS)


def test_all_that_equal_the_last_of_the_first_k_are_kept() -> None:
    scores = torch.full((4000,), -5.0)
    scores[[7, 3900, 11, 12, 13, 2000]] = torch.tensor([3.0, 2.0, 1.0, 1.0, 1.0, 1.0])

    assert compared(scores, sampling(top_k=3)) == len(NUMBERS)
    assert set(shortly(scores, sampling(top_k=3, temperature=9.0))) == {7, 3900, 11, 12, 13, 2000}


@pytest.mark.parametrize("equals", [TIES, TIES + 1, 2000])
def test_where_more_may_equal_it_than_were_looked_at_nothing_is_said(equals: int) -> None:
    scores = torch.full((4000,), -5.0)
    scores[:2] = 3.0
    scores[100 : 100 + equals] = 1.0

    assert compared(scores, sampling(top_k=3, temperature=9.0)) == (len(NUMBERS) if equals <= TIES else 0)


def test_a_row_of_fewer_tokens_than_k_draws_from_all_of_them() -> None:
    scores = torch.full((4000,), -math.inf)
    scores[[3999, 5, 70]] = torch.tensor([1.0, 1.0, 0.5])

    assert compared(scores, sampling(top_k=20)) == len(NUMBERS)
    assert set(shortly(scores, sampling(top_k=20))) == {3999, 5, 70}


@pytest.mark.parametrize("seed", range(5))
def test_where_rounding_decides_of_top_p_nothing_is_said(seed: int) -> None:
    scores = logits(seed, 3.0)
    kept = scores.masked_fill(scores < scores.topk(20).values[-1], -math.inf)
    cumulative = kept.sort().values.softmax(-1).cumsum(-1)
    for place in (-2, -3, -10):
        assert compared(scores, sampling(top_p=1.0 - float(cumulative[place]))) == 0


def test_where_rounding_decides_of_min_p_nothing_is_said() -> None:
    for share in (0.5, 0.1, 0.9):
        scores = torch.full((4000,), -math.inf)
        scores[[9, 4, 7]] = torch.tensor([0.0, math.log(share), math.log(share) - 2.0])
        for near in (share, share * (1 + 1e-6), share * (1 - 1e-6)):
            assert compared(scores, sampling(min_p=near)) == 0
        for far in (share * 1.001, share * 0.999):
            assert compared(scores, sampling(min_p=far)) > 0


def test_at_the_border_between_two_tokens_nothing_is_said() -> None:
    scores = torch.full((4000,), -math.inf)
    scores[[10, 20, 30, 40]] = 0.0
    numbers = [0.1, 0.3, 0.7, 0.25, 0.5 - 1e-12]

    drawn = drawn_of_few(scores.expand(5, -1), [sampling()] * 5, numbers)
    assert drawn == [10, 20, 30, None, None]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nothing_is_said_of_a_row_that_cannot_be_drawn_from(bad: float) -> None:
    scores = logits(0, 3.0).repeat(3, 1)
    scores[1, 7] = bad
    scores[2] = -math.inf
    one = sampling(top_p=0.8, min_p=0.1)

    drawn = drawn_of_few(scores, [one] * 3, NUMBERS[:3])
    assert drawn[0] is not None and drawn[1:] == [None, None]
    assert sample(scores, [Draw(sampling=one, index=0)] * 3, ()).tolist() == [drawn[0], UNUSABLE, UNUSABLE]


def test_rows_of_other_filters_beside_them_are_left_alone() -> None:
    scores = logits(1, 3.0).repeat(6, 1)
    asked = [sampling(top_k=top_k) for top_k in (0, 5, 4000, CANDIDATES, 1, 300)]

    drawn = drawn_of_few(scores, asked, NUMBERS[:6])
    assert [token is None for token in drawn] == [True, False, True, True, False, False]
    for row in (1, 4, 5):
        assert drawn_of_few(scores[row : row + 1], [asked[row]], [NUMBERS[row]]) == [drawn[row]]


class Looks(Computed):
    """`sizes`: how many numbers of a row each operation behind the first topk has looked at."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.sizes: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any("topk" in name for name in self.operations):
            self.sizes += [(str(func), one.numel() // self.rows) for one in args if isinstance(one, Tensor)]
        return super().__torch_dispatch__(func, types, args, kwargs)


def test_behind_the_first_topk_no_operation_looks_at_more_than_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 4
    scores = torch.randn(rows, 150_000, generator=torch.Generator().manual_seed(5)) * 3
    draws = [Draw(sampling=sampling(top_p=0.8, temperature=0.7, seed=row), index=row) for row in range(rows)]
    looks = Looks(rows)

    def counted(name: str) -> Any:
        compute = getattr(np, name)

        def counting(numbers: Any, *given: Any, **named: Any) -> Any:
            looks.sizes.append((name, np.size(numbers)))
            return compute(numbers, *given, **named)

        return counting

    for name in ("exp", "flatnonzero", "count_nonzero", "argsort", "sort", "partition", "searchsorted", "isfinite"):
        monkeypatch.setattr(np, name, counted(name))
    with looks:
        sample(scores, draws, ())
    behind: Sequence[tuple[str, int]] = looks.sizes
    assert [name for name, _ in behind if name == "exp"], "nothing was counted"
    assert sum("topk" in name for name in looks.operations) == 1
    first = next(number for number, (name, _) in enumerate(behind) if name.startswith("aten"))
    assert [look for look in behind[first:] if look[1] > CANDIDATES] == []
