"""The likely tokens of a row, found without sorting its whole vocabulary or adding all of it up.

Both take milliseconds for 150,000 tokens, and most filters leave a few of them. So a short way is gone first, in
float64, and says nothing where rounding might have decided otherwise on the long one, which the sampler goes then.
It knows one row of scores, nothing of draws or other filters.

The invariant: an answer is that of the long way.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["CANDIDATES", "token_at", "top_p_cut"]

Scores = npt.NDArray[np.float32]

CANDIDATES = 1024
"""So many of the likeliest are looked at."""
ROUNDING = 2.0**-24
"""Largest relative error of one float32 operation."""
NEAR = 1e-9
"""Far beyond the error of any sum in float64."""


def top_p_cut(scores: Scores, top_p: float) -> float | None:
    """The score of the least likely token that top-p keeps of a row; `None`: not known without sorting.

    Sorting, a token is kept if the softmax of it and of all that are less likely, a float32 each, sum up to more than
    1 - top_p (in float64, rounded). What all are divided by is a sum of float32, in that order: an addition errs by at
    most its result times `ROUNDING`, and the results, as shares, add up to a token's mean rank, the likeliest first.
    """
    best, size = scores.max(), len(scores)
    if not np.isfinite(best) or size <= CANDIDATES:
        return None
    # numpy's partition takes 13 ms where most scores are -inf
    likely = torch.from_numpy(scores).topk(CANDIDATES).values.numpy()
    total = np.exp(scores - best).sum(dtype=np.float64)
    shares = np.exp((likely - best).astype(np.float64)) / total
    sums = shares.cumsum()
    rest = 1.0 - np.concatenate(([0.0], sums[:-1]))
    """The share of each and of all behind it."""
    dropped = float(np.float32(1.0 - top_p))
    mean_rank = shares @ np.arange(1, CANDIDATES + 1) + (1.0 - sums[-1]) * size
    margin = ROUNDING * (64 + dropped * mean_rank)
    kept = max(1, int(np.count_nonzero(rest > dropped + margin)))
    if kept == CANDIDATES or rest[kept] >= dropped - margin or likely[kept] == likely[kept - 1]:
        return None  # of equal scores some would be kept, and sorting says which
    return float(likely[kept - 1])


def token_at(scores: Scores, number: float) -> int | None:
    """The token at `number` in [0, 1) of the distribution over those above -inf, in vocabulary order; `None`: they are
    too many, or it is too near to where one ends and another begins."""
    tokens = np.flatnonzero(scores > -np.inf)
    if not 0 < len(tokens) <= CANDIDATES:
        return None
    kept = scores[tokens].astype(np.float64)
    if not np.isfinite(kept.max()):
        return None
    cumulative = np.exp(kept - kept.max()).cumsum()
    cumulative /= cumulative[-1]
    place = int(np.searchsorted(cumulative, number, side="right"))
    if place == len(tokens) or np.abs(cumulative[max(0, place - 1) : place + 1] - number).min() < NEAR:
        return None
    return int(tokens[place])
