"""Log probabilities of tokens, from the logits as the model gave them (vLLM's default, `raw_logprobs`).

It knows nothing of how tokens are drawn.

The invariant: what a row is told depends on its own logits only.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from parrot_compat.core.call import MOST_LOGPROBS, TokenLogprobs
from parrot_compat.gpu.drawing.softmax import log_softmax
from parrot_compat.gpu.to_device import listed

__all__ = ["as_told", "looked_up", "told_logprobs"]


def told_logprobs(tokens: Sequence[int], logits: Tensor, tops: Sequence[int]) -> list[TokenLogprobs]:
    """Of each row of `logits` its token's, and as many of the likeliest as `tops` says. Waits for the device."""
    own, values, ids = looked_up(listed(tokens, logits.device), log_softmax(logits.float()))
    return as_told(tokens, tops, own.tolist(), values.tolist(), ids.tolist())


def looked_up(tokens: Tensor, logprobs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row of `logprobs` [rows, vocabulary], where they are: its token's [rows]; those of the likeliest, and
    which these are, [rows, MOST_LOGPROBS]. Nothing here waits for the device."""
    # Always as many as anybody may ask for: which of equals come first must not depend on the other rows.
    largest = logprobs.topk(min(MOST_LOGPROBS, logprobs.shape[-1]), dim=-1)
    return logprobs.gather(-1, tokens[:, None]).squeeze(-1), largest.values, largest.indices


def as_told(
    tokens: Sequence[int],
    tops: Sequence[int],
    own: Sequence[float],
    values: Sequence[Sequence[float]],
    ids: Sequence[Sequence[int]],
) -> list[TokenLogprobs]:
    """What `looked_up` found, on the host."""
    return [
        TokenLogprobs(token, own[row], tuple(zip(ids[row][:most], values[row][:most], strict=True)))
        for row, (token, most) in enumerate(zip(tokens, tops, strict=True))
    ]
