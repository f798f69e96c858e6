"""What is done to the logits before anything is filtered: bias, then the penalties, in vLLM's order.

    + bias;  / or * repetition_penalty (prompt and output);  - frequency_penalty * count - presence_penalty (output)

It knows nothing of temperatures, models or sequences, and leaves how penalties are taken off to `penalised`.

The invariant: a row that asks for none of this keeps its logits bit for bit; where no row does, nothing is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parrot_compat.core.call import LOGIT_BIASES, MOST_LOGPROBS, PENALTIES, REPETITION_PENALTIES, ResolvedSampling
from parrot_compat.core.errors import BadPrompt
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.penalised import penalise_at_once, penalise_by_row
from parrot_compat.gpu.to_device import listed

__all__ = ["adjusted", "check_sampling"]


def check_sampling(sampling: ResolvedSampling, vocabulary: int) -> None:
    """Errors: `BadPrompt` for values that could not be drawn with, which would fail the whole step."""
    _within("repetition_penalty", sampling.repetition_penalty, *REPETITION_PENALTIES)
    _within("presence_penalty", sampling.presence_penalty, *PENALTIES)
    _within("frequency_penalty", sampling.frequency_penalty, *PENALTIES)
    _within("logprobs", sampling.logprobs or 0, 0, MOST_LOGPROBS)
    _within("prompt_logprobs", sampling.prompt_logprobs or 0, 0, MOST_LOGPROBS)
    for token, bias in sampling.logit_bias:
        _within("logit_bias", bias, *LOGIT_BIASES)
        if not 0 <= token < vocabulary:
            raise BadPrompt(f"logit_bias: token id {token} is not in the vocabulary of {vocabulary}", "logit_bias")


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise BadPrompt(f"{name} is {value}, not in [{least}, {most}]", name)


def adjusted(scores: Tensor, draws: Sequence[Draw]) -> Tensor:
    """`scores` [rows, vocabulary] with every row's bias and penalties, in float32 if there is any, as a copy, which is
    the caller's; the tensor given is not changed, and is what comes back where there is none."""
    is_biased = any(draw.sampling.logit_bias for draw in draws)
    is_penalised = any(draw.history is not None for draw in draws)
    if not (is_biased or is_penalised):
        return scores
    ours = scores.clone() if scores.dtype == torch.float32 else scores.float()
    if is_biased:
        _bias(ours, draws)
    if is_penalised and ours.device.type == "cpu":
        penalise_by_row(ours.numpy(), draws)
    elif is_penalised:
        penalise_at_once(ours, draws)
    return ours


def _bias(scores: Tensor, draws: Sequence[Draw]) -> None:
    entries = [(row, token, bias) for row, draw in enumerate(draws) for token, bias in draw.sampling.logit_bias]
    rows, tokens, biases = zip(*entries, strict=True)
    where = (listed(rows, scores.device), listed(tokens, scores.device))
    scores.index_put_(where, listed(biases, scores.device, scores.dtype), accumulate=True)
