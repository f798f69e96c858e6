"""Sets of tokens in bits, and the sampler that keeps to them."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.sampler import sample
from parrot_compat.gpu.drawing.token_bits import TokenBits, all_but, as_mask, spread

CPU = torch.device("cpu")

sets = st.lists(st.frozensets(st.integers(0, 99), max_size=12), min_size=1, max_size=4)


def bits(tokens: frozenset[int], size: int = 13) -> TokenBits:
    return ~all_but(tokens, size)


@settings(max_examples=60, deadline=None)
@given(chosen=sets, tokens=st.integers(1, 120))
def test_a_mask_is_true_where_the_token_is_in_the_set_and_nowhere_else(
    chosen: list[frozenset[int]], tokens: int
) -> None:
    mask = as_mask([bits(one) for one in chosen], tokens, CPU)
    assert mask.dtype == torch.bool and mask.shape == (len(chosen), tokens)
    for row, one in zip(mask, chosen, strict=True):
        assert set(torch.nonzero(row).flatten().tolist()) == {token for token in one if token < tokens}


@settings(max_examples=30, deadline=None)
@given(chosen=sets, tokens=st.integers(1, 104))
def test_bits_are_spread_alike_on_the_device_and_on_the_host(chosen: list[frozenset[int]], tokens: int) -> None:
    packed = np.stack([bits(one) for one in chosen])
    assert torch.equal(spread(torch.from_numpy(packed), tokens), as_mask(list(packed), tokens, CPU))


def test_all_but_some_is_all_others() -> None:
    mask = as_mask([all_but((3, 8, 500), 2)], 20, CPU)[0]
    assert torch.nonzero(~mask).flatten().tolist() == [3, 8, 16, 17, 18, 19]


def test_rows_with_a_form_draw_inside_it_and_the_others_as_ever() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    sampling = ResolvedSampling(max_tokens=9, temperature=1.0, seed=5)
    free = [Draw(sampling=sampling, index=index) for index in range(4)]
    alone = sample(logits, free, ())
    wanted = frozenset((7, 31))
    some = [free[0], Draw(sampling=sampling, index=1, allowed=lambda: bits(wanted)), free[2], free[3]]
    drawn = sample(logits, some, ())
    assert drawn[[0, 2, 3]].tolist() == alone[[0, 2, 3]].tolist()
    every = [Draw(sampling=sampling, index=index, allowed=lambda: bits(wanted)) for index in range(4)]
    together = sample(logits, every, ())
    assert set(together.tolist()) <= wanted and drawn[1] == together[1]
