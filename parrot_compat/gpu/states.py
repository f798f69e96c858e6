"""Reads what a step's rows asked to know (`wanted`): states of tokens for vectors, log probabilities of a prompt.

It knows nothing of models or of why somebody asks.
The invariant: what a row is told depends on its own tokens only. Sums are made in float64, so that the chunks in which
a text is computed do not show in the float32 that is handed out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from parrot_compat.core.call import TokenLogprobs
from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.drawing.logprobs import told_logprobs
from parrot_compat.gpu.wanted import Pool, Read, Score

__all__ = ["read_scores", "read_states"]


def read_states(states: Tensor, rows: Sequence[BatchRow]) -> list[Read]:
    """`states` [tokens, hidden] of the rows' tokens, one row after another; all rows have a `Pool`."""
    reads: list[Read] = []
    for row, own in zip(rows, torch.split(states, [len(row.tokens) for row in rows]), strict=True):
        assert isinstance(row.wanted, Pool)
        pooled = own[-1].double() if row.wanted.pooling == "last" else own.double().sum(0)
        reads.append(Read(states=pooled.cpu().numpy()))
    return reads


def read_scores(
    parts: Iterable[Tensor], rows: Sequence[BatchRow]
) -> tuple[list[tuple[TokenLogprobs, ...]], list[Tensor]]:
    """What each row, all with a `Score`, is told; and each row's logits behind its last token.

    `parts`: [some tokens, vocabulary] each, together the logits behind all tokens of the rows, in order.
    """
    asked: list[tuple[int, int]] = []  # of each token what follows it (its own id where that is not known), and top
    lasts: list[int] = []
    for row in rows:
        assert isinstance(row.wanted, Score)
        targets = (*row.wanted.targets, *row.tokens[len(row.wanted.targets) :])
        asked += [(target, row.wanted.top) for target in targets]
        lasts.append(len(asked) - 1)
    told: list[TokenLogprobs] = []
    behind: dict[int, Tensor] = {}
    for logits in parts:
        start = len(told)
        tokens, tops = zip(*asked[start : start + len(logits)], strict=True)
        told += told_logprobs(tokens, logits, tops)
        behind |= {last: logits[last - start].clone() for last in lasts if start <= last < len(told)}
    scores: list[tuple[TokenLogprobs, ...]] = []
    for row, last in zip(rows, lasts, strict=True):
        assert isinstance(row.wanted, Score)
        first = last + 1 - len(row.tokens)
        scores.append(tuple(told[first : first + len(row.wanted.targets)]))
    return scores, [behind[last] for last in lasts]
