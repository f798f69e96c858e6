"""What rows drew, with its log probabilities: asked of the device at once and only read later."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from parrot_compat.core.call import ResolvedSampling, TokenLogprobs
from parrot_compat.core.errors import EngineError
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.drawn import Replaceable
from parrot_compat.gpu.drawing.outcome import Outcome
from parrot_compat.gpu.drawing.sampler import UNUSABLE, sample
from tests.gpu.drawing.computed import Computed

VOCABULARY = 40


def draws(tops: list[int | None], *formed: int) -> list[Draw]:
    def anything() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return np.full(-(-VOCABULARY // 8), 0xFF, np.uint8)

    return [
        Draw(
            sampling=ResolvedSampling(max_tokens=9, logprobs=top),
            index=0,
            allowed=anything if row in formed else None,
        )
        for row, top in enumerate(tops)
    ]


def some_logits(rows: int) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(3)) * 4


@pytest.mark.parametrize("tops", [[2, None, 0, 3], [1, 1, 1, 1], [None] * 4])
def test_everything_is_computed_when_the_step_is_launched_and_nothing_when_it_is_read(tops: list[int | None]) -> None:
    logits, asked = some_logits(4), draws(tops, 0, 1)
    drawn = sample(logits, asked, ())
    outcome = Outcome(drawn, logits, asked)

    with Computed() as computed:
        found = outcome.read()

    assert computed.operations == []
    expected = logits.log_softmax(-1)
    for row, (top, item) in enumerate(zip(tops, found, strict=True)):
        token = int(drawn[row])
        if top is None:
            assert item == token
            continue
        told = item.told if isinstance(item, Replaceable) else item
        assert isinstance(item, Replaceable) == (row in (0, 1)) and isinstance(told, TokenLogprobs)
        likeliest = expected[row].topk(top)
        assert told.top == tuple(zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True))
        assert (told.token, told.logprob) == (token, float(expected[row, token]))
        if isinstance(item, Replaceable):
            other = (token + 1) % VOCABULARY
            assert item.taken(other) == TokenLogprobs(other, float(expected[row, other]), told.top)


@pytest.mark.parametrize("tops", [[2, None, 0], [1, 1, 1]])
def test_nothing_is_read_of_the_device_while_a_step_is_launched(tops: list[int | None]) -> None:
    """`meta` stands for any device that has not come to these numbers yet: asking for one of them is an error."""
    logits = torch.empty(3, VOCABULARY, device="meta")
    tokens = torch.empty(3, dtype=torch.int64, device="meta")

    outcome = Outcome(tokens, logits, draws(tops, 1))

    assert outcome.tokens is tokens
    with pytest.raises((RuntimeError, NotImplementedError)):
        outcome.read()


def test_a_row_that_could_not_be_drawn_is_told_why_and_the_others_are_told_theirs() -> None:
    logits = some_logits(3)
    logits[1] = float("nan")
    tokens = torch.tensor([4, UNUSABLE, 5])

    first, broken, last = Outcome(tokens, logits, draws([1, 1, 1], 1)).read()

    assert isinstance(broken, EngineError)
    assert isinstance(first, TokenLogprobs) and isinstance(last, TokenLogprobs)
    assert (first.token, last.token) == (4, 5) and np.isfinite([first.logprob, last.logprob]).all()
