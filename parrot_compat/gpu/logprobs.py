"""Log probabilities of drawn tokens, from the logits as the model gave them (vLLM's default, `raw_logprobs`).

It knows nothing of how the tokens were drawn.

The invariant: what a row is told depends on its own logits only, and rows that did not ask cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parrot_compat.core.call import MOST_LOGPROBS, TokenLogprobs
from parrot_compat.gpu.batch import Draw, Drawn

__all__ = ["with_logprobs"]


def with_logprobs(tokens: Sequence[int], logits: Tensor, draws: Sequence[Draw]) -> Sequence[Drawn]:
    """`tokens`, one per row of `logits`; those of rows that ask for log probabilities with them."""
    asking = [row for row, draw in enumerate(draws) if draw.sampling.logprobs is not None]
    if not asking:
        return tokens
    rows = logits if len(asking) == len(draws) else logits[torch.tensor(asking, device=logits.device)]
    logprobs = rows.float().log_softmax(dim=-1)
    drawn = torch.tensor([[tokens[row]] for row in asking], device=logits.device)
    own = logprobs.gather(-1, drawn).squeeze(-1).tolist()
    # Always as many as anybody may ask for: which of equals come first must not depend on the other rows.
    largest = logprobs.topk(min(MOST_LOGPROBS, logprobs.shape[-1]), dim=-1)
    values, ids = largest.values.tolist(), largest.indices.tolist()
    told: list[Drawn] = list(tokens)
    for place, row in enumerate(asking):
        most = draws[row].sampling.logprobs
        top = tuple(zip(ids[place][:most], values[place][:most], strict=True))
        told[row] = TokenLogprobs(tokens[row], own[place], top)
    return told
