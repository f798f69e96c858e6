"""The likely tokens of a row, found without sorting its whole vocabulary or adding all of it up.

Either takes milliseconds for 150,000 tokens, and most filters leave a few of them. So a short way is gone first, in
float64, and says nothing where rounding might have decided otherwise on the long one, which the sampler goes then.
It knows one row of scores, or the likeliest of one, and one filter at a time; nothing of draws.

The invariant: an answer is that of the long way.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["CANDIDATES", "Scores", "min_p_count", "token_among", "token_at", "top_p_count", "top_p_cut"]

Scores = npt.NDArray[np.float32]

CANDIDATES = 1024
"""So many of the likeliest are looked at."""
ROUNDING = 2.0**-24
"""Largest relative error of one float32 operation."""
NEAR = 1e-9
"""Far beyond the error of any sum in float64."""
NEAR_RATIO = 2.0**-14
"""Far beyond the error, relative to it, of one share by another: that of two exponentials of float32 (torch's may err
by 20 units in the last place) and of a few operations."""
SMALL = 1e-20
"""Shares less than this may be too small for a float32 to be right to its last places."""


def top_p_cut(scores: Scores, top_p: float) -> float | None:
    """The score of the least likely token that top-p keeps of a row; `None`: not known without sorting."""
    best, size = scores.max(), len(scores)
    if not np.isfinite(best) or size <= CANDIDATES:
        return None
    # numpy's partition takes 13 ms where most scores are -inf
    likely = torch.from_numpy(scores).topk(CANDIDATES).values.numpy()
    kept = top_p_count(likely, np.exp(scores - best).sum(dtype=np.float64), top_p, size)
    return None if kept is None else float(likely[kept - 1])


def top_p_count(likely: Scores, total: np.float64, top_p: float, size: int) -> int | None:
    """How many top-p keeps of `size` tokens, of which `likely` are the likeliest, in order, and `total` is what the
    exponentials of all, by the likeliest's, sum up to; `None`: not known without sorting.

    Sorting, a token is kept if the softmax of it and of all that are less likely, a float32 each, sum up to more than
    1 - top_p (in float64, rounded). What all are divided by is a sum of float32, in that order: an addition errs by at
    most its result times `ROUNDING`, and the results, as shares, add up to a token's mean rank, the likeliest first.
    """
    shares = np.exp((likely - likely[0]).astype(np.float64)) / total
    sums = shares.cumsum()
    rest = 1.0 - np.concatenate(([0.0], sums[:-1]))
    """The share of each and of all behind it."""
    dropped = float(np.float32(1.0 - top_p))
    mean_rank = shares @ np.arange(1, len(likely) + 1) + (1.0 - sums[-1]) * size
    margin = ROUNDING * (64 + dropped * mean_rank)
    kept = max(1, int(np.count_nonzero(rest > dropped + margin)))
    if kept == len(likely):
        return kept if kept == size else None
    if rest[kept] >= dropped - margin or likely[kept] == likely[kept - 1]:
        return None  # of equal scores some would be kept, and sorting says which
    return kept


def min_p_count(likely: Scores, min_p: float) -> int | None:
    """How many min-p keeps of tokens of which none but `likely` have a share, in order, the likeliest first; `None`:
    rounding may decide.

    A token is dropped if its share, a float32, is less than `min_p` times the likeliest's, and less than that."""
    least = min(min_p, 1.0)
    if least < SMALL:
        return None
    ratios = np.exp((likely - likely[0]).astype(np.float64))
    if (np.abs(ratios[1:] - least) < NEAR_RATIO * least).any():
        return None
    return max(1, int(np.count_nonzero(ratios >= least)))


def token_at(scores: Scores, number: float) -> int | None:
    """The token at `number` in [0, 1) of the distribution over those above -inf, in vocabulary order; `None`: they are
    too many, or it is too near to where one ends and another begins."""
    tokens = np.flatnonzero(scores > -np.inf)
    return token_among(tokens, scores[tokens], number) if 0 < len(tokens) <= CANDIDATES else None


def token_among(tokens: npt.NDArray[np.int64], scores: Scores, number: float) -> int | None:
    """The same, where those above -inf are given, in vocabulary order."""
    kept = scores.astype(np.float64)
    if not np.isfinite(kept.max()):
        return None
    cumulative = np.exp(kept - kept.max()).cumsum()
    cumulative /= cumulative[-1]
    place = int(np.searchsorted(cumulative, number, side="right"))
    if place == len(tokens) or np.abs(cumulative[max(0, place - 1) : place + 1] - number).min() < NEAR:
        return None
    return int(tokens[place])
