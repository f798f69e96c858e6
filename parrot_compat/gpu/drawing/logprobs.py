"""Log probabilities of tokens, from the logits as the model gave them (vLLM's default, `raw_logprobs`).

It knows nothing of how tokens are drawn.

The invariant: what a row is told depends on its own logits only, and rows that did not ask cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parrot_compat.core.call import MOST_LOGPROBS, TokenLogprobs
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.drawn import Drawn, Replaceable
from parrot_compat.gpu.drawing.sampler import UNUSABLE

__all__ = ["told_logprobs", "with_logprobs"]


def with_logprobs(tokens: Sequence[int], logits: Tensor, draws: Sequence[Draw]) -> Sequence[Drawn]:
    """`tokens`, one per row of `logits`; those of rows that ask for log probabilities with them."""
    asking = [row for row, draw in enumerate(draws) if draw.sampling.logprobs is not None]
    if not asking:
        return tokens
    rows = logits if len(asking) == len(draws) else logits[torch.tensor(asking, device=logits.device)]
    tops = [draws[row].sampling.logprobs or 0 for row in asking]
    told: list[Drawn] = list(tokens)
    logprobs = rows.float().log_softmax(dim=-1)
    # a row without a usable token stays as it is: what is told of token 0 in its place is thrown away
    items = _told([max(0, tokens[row]) for row in asking], logprobs, tops)
    for place, (row, item) in enumerate(zip(asking, items, strict=True)):
        if tokens[row] != UNUSABLE:
            is_formed = draws[row].allowed is not None
            told[row] = Replaceable(told=item, logprobs=logprobs[place]) if is_formed else item
    return told


def told_logprobs(tokens: Sequence[int], logits: Tensor, tops: Sequence[int]) -> list[TokenLogprobs]:
    """Of each row of `logits` its token's, and as many of the likeliest as `tops` says."""
    return _told(tokens, logits.float().log_softmax(dim=-1), tops)


def _told(tokens: Sequence[int], logprobs: Tensor, tops: Sequence[int]) -> list[TokenLogprobs]:
    which = torch.tensor(tokens, device=logprobs.device)[:, None]
    own = logprobs.gather(-1, which).squeeze(-1).tolist()
    # Always as many as anybody may ask for: which of equals come first must not depend on the other rows.
    largest = logprobs.topk(min(MOST_LOGPROBS, logprobs.shape[-1]), dim=-1)
    values, ids = largest.values.tolist(), largest.indices.tolist()
    return [
        TokenLogprobs(token, own[row], tuple(zip(ids[row][:most], values[row][:most], strict=True)))
        for row, (token, most) in enumerate(zip(tokens, tops, strict=True))
    ]
