"""Draws the next token of every row of a step from its logits.

Bias and penalties (`penalties`) come first. Filters come in the order and with the edge cases of Hugging Face's logits
processors: temperature, top-k, top-p, min-p. The random number of a draw is a function of (seed, index) alone and each
filter works row by row, so a sampled text does not depend on its neighbours, on preemption or on replay.
It knows nothing of models; when a text ends is the engine's decision (`ignore_eos` therefore bans nothing).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.errors import EngineError
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.few import drawn_of_few
from parrot_compat.gpu.drawing.likely import token_at, top_p_cut
from parrot_compat.gpu.drawing.penalties import adjusted
from parrot_compat.gpu.drawing.softmax import softmax
from parrot_compat.gpu.drawing.token_bits import as_mask
from parrot_compat.gpu.to_device import listed

__all__ = ["UNUSABLE", "filter_scores", "likeliest", "not_drawable", "sample", "uniform"]

GREEDY_BELOW = 1e-5
"""A temperature this low is greedy, as in vLLM: dividing by it would overflow."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


UNUSABLE = -1
"""In place of a token, where the logits of a row cannot be drawn from."""


def sample(logits: Tensor, draws: Sequence[Draw], eos_token_ids: Sequence[int]) -> Tensor:
    """[rows] int64, on the device of `logits` [rows, vocabulary], which stay as they are: one token for each row, or
    `UNUSABLE`. Nothing here waits for the device. Greedy takes the lowest id among equals."""
    if all(map(_is_plain, draws)):
        return likeliest(logits)
    scores = adjusted(logits, draws)
    is_ours = scores is not logits
    scores = _ban_endings(scores, draws, eos_token_ids, is_ours=is_ours)
    scores = _keep_allowed(scores, draws, is_ours=is_ours)
    tokens = likeliest(scores)
    random = [row for row, draw in enumerate(draws) if draw.sampling.temperature >= GREEDY_BELOW]
    if random:
        places = listed(random, scores.device)
        chosen = scores if len(random) == len(draws) else scores[places]
        drawn = _draw(chosen.float(), [draws[row] for row in random])
        tokens = tokens.index_copy(0, places, torch.where(tokens[places] == UNUSABLE, UNUSABLE, drawn))
    return tokens


def _is_plain(draw: Draw) -> bool:
    """Greedy, and nothing is done to its logits."""
    sampling = draw.sampling
    return (
        sampling.temperature < GREEDY_BELOW
        and draw.allowed is None
        and draw.history is None
        and not sampling.logit_bias
        and draw.index >= sampling.min_tokens
    )


def likeliest(scores: Tensor) -> Tensor:
    """Of each row the lowest token that has the largest score, or `UNUSABLE` where that is not finite."""
    # NaN wins every max, so one look at the maxima finds all that is unusable.
    if scores.device.type != "cpu" or scores.dtype != torch.float32:
        best = scores.max(dim=-1)
        return torch.where(torch.isfinite(best.values), best.indices, UNUSABLE)
    # numpy's argmax looks at many numbers at once, and small operations of its own cost less than torch's.
    numbers = scores.numpy()
    tokens = numbers.argmax(axis=-1)
    tokens[~np.isfinite(numbers[np.arange(len(numbers)), tokens])] = UNUSABLE
    return torch.from_numpy(tokens)


def not_drawable() -> EngineError:
    """What is said of a row that drew `UNUSABLE`."""
    return EngineError("the model gave logits that cannot be drawn from (NaN, infinite, or all excluded)")


def uniform(seed: int, index: int) -> float:
    """The random number in [0, 1) of draw `index` under `seed`: splitmix64 as a counter, 53 bits of it."""
    return (_mix(_mix(seed & _MASK) + index * _GOLDEN) >> 11) * 2.0**-53


def _mix(state: int) -> int:
    state = (state + _GOLDEN) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def _ban_endings(scores: Tensor, draws: Sequence[Draw], eos_token_ids: Sequence[int], *, is_ours: bool) -> Tensor:
    """Rows that have not drawn `min_tokens` yet cannot end: end-of-sequence and their stop tokens become -inf, in place
    if the scores are ours."""
    rows: list[int] = []
    columns: list[int] = []
    for row, draw in enumerate(draws):
        if draw.index < draw.sampling.min_tokens and draw.allowed is None:
            endings = {token for token in (*eos_token_ids, *draw.sampling.stop_token_ids) if token < scores.shape[-1]}
            rows.extend([row] * len(endings))
            columns.extend(endings)
    if not rows:
        return scores
    where = (listed(rows, scores.device), listed(columns, scores.device))
    put = scores.index_put_ if is_ours else scores.index_put
    return put(where, scores.new_full((), float("-inf")))


def _keep_allowed(scores: Tensor, draws: Sequence[Draw], *, is_ours: bool) -> Tensor:
    """Rows that must have a form keep the tokens that their form allows; the rest of them becomes -inf, in place if the
    scores are ours."""
    # Only now, when the device is at work on the logits already: this is the host's.
    formed = [(row, draw.allowed()) for row, draw in enumerate(draws) if draw.allowed is not None]
    if not formed:
        return scores
    banned = ~as_mask([allowed for _, allowed in formed], scores.shape[-1], scores.device)
    if len(formed) == len(draws):
        fill = scores.masked_fill_ if is_ours else scores.masked_fill
        return fill(banned, float("-inf"))
    rows = listed([row for row, _ in formed], scores.device)
    put = scores.index_copy_ if is_ours else scores.index_copy
    return put(0, rows, scores[rows].masked_fill(banned, float("-inf")))


def _draw(scores: Tensor, draws: Sequence[Draw]) -> Tensor:
    """[rows] int64: inverse CDF over the filtered distribution, in vocabulary order."""
    numbers = [uniform(draw.sampling.seed, draw.index) for draw in draws]
    if scores.device.type != "cpu":
        return _by_adding_up(_filtered(scores, draws), numbers)
    found = drawn_of_few(scores, [draw.sampling for draw in draws], numbers)
    if long := [row for row, token in enumerate(found) if token is None]:
        chosen = scores if len(long) == len(draws) else scores[torch.tensor(long)]
        drawn = _drawn_of_all(chosen, [draws[row] for row in long], [numbers[row] for row in long])
        for row, token in zip(long, drawn, strict=True):
            found[row] = token
    return torch.tensor(found)


def _drawn_of_all(scores: Tensor, draws: Sequence[Draw], numbers: Sequence[float]) -> list[int | None]:
    """The same on a CPU, where every filter looks at the whole vocabulary."""
    kept = _filtered(scores, draws)
    found = [
        token_at(row, number) if _drops_most(draw.sampling) else None
        for row, number, draw in zip(kept.numpy(), numbers, draws, strict=True)
    ]
    if long := [row for row, token in enumerate(found) if token is None]:
        chosen = kept if len(long) == len(draws) else kept[torch.tensor(long)]
        drawn = _by_adding_up(chosen, [numbers[row] for row in long])
        for row, token in zip(long, drawn.tolist(), strict=True):
            found[row] = token
    return found


def _filtered(scores: Tensor, draws: Sequence[Draw]) -> Tensor:
    return filter_scores(
        scores,
        temperatures=[draw.sampling.temperature for draw in draws],
        top_ks=[draw.sampling.top_k for draw in draws],
        top_ps=[draw.sampling.top_p for draw in draws],
        min_ps=[draw.sampling.min_p for draw in draws],
    )


def _drops_most(sampling: ResolvedSampling) -> bool:
    return sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0


def _by_adding_up(kept: Tensor, numbers: Sequence[float]) -> Tensor:
    """[rows] int64: the token at each row's number of the distribution over its whole vocabulary."""
    cumulative = _added_up(softmax(kept.double()))
    total = cumulative[:, -1:]
    # Strictly below the total, or rounding could point behind the last token that has any probability.
    points = torch.minimum(_column(numbers, cumulative) * total, torch.nextafter(total, torch.zeros_like(total)))
    # A row without a usable score may point behind the last token; its draw is thrown away.
    return torch.searchsorted(cumulative, points, right=True).squeeze(-1).clamp(max=kept.shape[-1] - 1)


def filter_scores(
    scores: Tensor,
    *,
    temperatures: Sequence[float],
    top_ks: Sequence[int],
    top_ps: Sequence[float],
    min_ps: Sequence[float],
) -> Tensor:
    """`scores` [rows, vocabulary] after temperature, top-k, top-p and min-p of each row; what is dropped is -inf."""
    scores = scores / _column(temperatures, scores)
    vocabulary = scores.shape[-1]
    if any(0 < k < vocabulary for k in top_ks):
        keep = [k if 0 < k < vocabulary else vocabulary for k in top_ks]
        largest = scores.topk(max(k for k in keep if k < vocabulary), dim=-1).values
        last = listed([min(k, largest.shape[-1]) - 1 for k in keep], scores.device)[:, None]
        unfiltered = listed([k == vocabulary for k in keep], scores.device, torch.bool)[:, None]
        scores = scores.masked_fill((scores < largest.gather(-1, last)) & ~unfiltered, float("-inf"))
    if any(p < 1.0 for p in top_ps):
        scores = _keep_top_p(scores, top_ps)
    if any(p > 0.0 for p in min_ps):
        shares = softmax(scores)
        likeliest = shares.amax(dim=-1, keepdim=True)
        dropped = (shares < _column(min_ps, scores) * likeliest) & (shares < likeliest)
        scores = scores.masked_fill(dropped, float("-inf"))
    return scores


def _added_up(shares: Tensor) -> Tensor:
    """Running sums of each row. In which order a CUDA device adds hangs on the number of rows: one alone is added in
    another than several, and these in one that changes where there are more than a 512th of the vocabulary (torch's
    ScanUtils.cuh)."""
    if shares.device.type == "cpu":
        return shares.cumsum(dim=-1)
    most = max(2, 1 << max(1, (shares.shape[-1] - 1).bit_length() - 9))
    parts = [
        part.cumsum(dim=-1) if len(part) > 1 else part.expand(2, -1).cumsum(dim=-1)[:1]
        for part in torch.split(shares, most)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return listed(values, like.device, like.dtype)[:, None]


def _keep_top_p(scores: Tensor, top_ps: Sequence[float]) -> Tensor:
    if scores.device.type != "cpu" or scores.dtype != torch.float32:
        return _top_p_by_sorting(scores, top_ps)
    rows = scores.numpy()
    cuts = [top_p_cut(row, p) if p < 1.0 else float("-inf") for row, p in zip(rows, top_ps, strict=True)]
    if long := [row for row, cut in enumerate(cuts) if cut is None]:
        places = torch.tensor(long)
        scores = scores.index_copy(0, places, _top_p_by_sorting(scores[places], [top_ps[row] for row in long]))
    least = torch.tensor([float("-inf") if cut is None else cut for cut in cuts])
    return scores.masked_fill(scores < least[:, None], float("-inf"))


def _top_p_by_sorting(scores: Tensor, top_ps: Sequence[float]) -> Tensor:
    ascending, order = scores.sort(dim=-1)
    cumulative = _added_up(softmax(ascending))
    # 1 - p in double and then rounded, which is what comparing with the Python number `1 - top_p` does.
    dropped = (cumulative <= _column([1.0 - p for p in top_ps], scores)) & (_column(top_ps, scores) < 1.0)
    dropped[:, -1] = False
    return scores.masked_fill(dropped.scatter(-1, order, dropped), float("-inf"))
