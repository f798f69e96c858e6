"""Rows of which top-k leaves few tokens: what comes behind it looks at those alone.

    scores --temperature, the likeliest--> k and those behind them --top-k, top-p, min-p--> kept --draw--> token

The likeliest of all such rows are found at once, before they are divided by the temperature: division keeps their
order, though it may make equals. The rest is numbers of one row, in `likely`. It knows scores on the host and
samplings, nothing of batches, and nothing of a row that it says nothing of: the sampler filters its whole vocabulary.

The invariant: a token that is told is the one drawn by filtering the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.drawing.likely import CANDIDATES, Scores, min_p_count, token_among, top_p_count

__all__ = ["TIES", "drawn_of_few"]

TIES = 64
"""So many are looked at behind the first k: logits of 16 bits have equals of the last one, which are kept as well."""


def drawn_of_few(scores: Tensor, samplings: Sequence[ResolvedSampling], numbers: Sequence[float]) -> list[int | None]:
    """Of each row of `scores` [rows, vocabulary], float32 on the host, the token at its number in [0, 1); `None`: not
    known without looking at its whole vocabulary."""
    found: list[int | None] = [None] * len(samplings)
    most = min(scores.shape[-1], CANDIDATES)
    rows = [row for row, sampling in enumerate(samplings) if 0 < sampling.top_k < most]
    if not rows:
        return found
    chosen = scores if len(rows) == len(samplings) else scores[torch.tensor(rows)]
    largest = chosen.topk(min(most, TIES + max(samplings[row].top_k for row in rows)), dim=-1)
    temperatures = torch.tensor([samplings[row].temperature for row in rows], dtype=scores.dtype)[:, None]
    values = (largest.values / temperatures).numpy()
    for row, likely, tokens in zip(rows, values, largest.indices.numpy(), strict=True):
        kept = _kept(likely, samplings[row])
        if kept is not None:
            order = tokens[:kept].argsort()
            found[row] = token_among(tokens[order], likely[order], numbers[row])
    return found


def _kept(likely: Scores, sampling: ResolvedSampling) -> int | None:
    """How many of the likeliest, in order, all filters keep; `None`: not known from them."""
    last = likely[sampling.top_k - 1]
    if not np.isfinite(likely[0]) or (likely[-1] == last and last > -np.inf):
        return None  # of equals of the last one there may be more
    kept: int | None = int(np.count_nonzero((likely >= last) & (likely > -np.inf)))
    if sampling.top_p < 1.0:
        kept = _top_p(likely[:kept], sampling.top_p)
    if sampling.min_p > 0.0 and kept is not None:
        kept = min_p_count(likely[:kept], sampling.min_p)
    return kept


def _top_p(likely: Scores, top_p: float) -> int | None:
    return top_p_count(likely, np.exp((likely - likely[0]).astype(np.float64)).sum(), top_p, len(likely))
