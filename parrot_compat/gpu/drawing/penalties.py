"""What is done to the logits before anything is filtered: bias, then the penalties, in vLLM's order.

    + bias;  / or * repetition_penalty (prompt and output);  - frequency_penalty * count - presence_penalty (output)

It knows nothing of temperatures, models or sequences. All rows are done at once.

The invariant: a row that asks for none of this keeps its logits bit for bit; where no row does, nothing is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from parrot_compat.core.call import LOGIT_BIASES, MOST_LOGPROBS, PENALTIES, REPETITION_PENALTIES, ResolvedSampling
from parrot_compat.core.errors import BadPrompt
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.to_device import listed, moved

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
    """`scores` [rows, vocabulary] with every row's bias and penalties, in float32 if there is any; the tensor given is
    not changed."""
    if any(draw.sampling.logit_bias or draw.history is not None for draw in draws):
        scores = scores.float()
    if any(draw.sampling.logit_bias for draw in draws):
        scores = _biased(scores, draws)
    penalised = [(row, draw) for row, draw in enumerate(draws) if draw.history is not None]
    return _penalised(scores, penalised) if penalised else scores


def _biased(scores: Tensor, draws: Sequence[Draw]) -> Tensor:
    entries = [(row, token, bias) for row, draw in enumerate(draws) for token, bias in draw.sampling.logit_bias]
    rows, tokens, biases = zip(*entries, strict=True)
    where = (listed(rows, scores.device), listed(tokens, scores.device))
    return scores.index_put(where, listed(biases, scores.device, scores.dtype), accumulate=True)


def _penalised(scores: Tensor, penalised: Sequence[tuple[int, Draw]]) -> Tensor:
    seen = [draw.history.seen() for _, draw in penalised if draw.history is not None]
    sizes = [len(ids) for ids, _ in seen]
    index = np.stack(
        (
            np.repeat([row for row, _ in penalised], sizes),
            np.concatenate([ids for ids, _ in seen]),
            np.concatenate([counts for _, counts in seen]),
        )
    )
    rows, tokens, counts = moved(torch.from_numpy(index), scores.device)

    def each(values: list[float]) -> Tensor:
        return moved(torch.from_numpy(np.repeat(np.asarray(values, dtype=np.float32), sizes)), scores.device)

    repetition = each([draw.sampling.repetition_penalty for _, draw in penalised])
    frequency = each([draw.sampling.frequency_penalty for _, draw in penalised])
    presence = each([draw.sampling.presence_penalty for _, draw in penalised])
    values = scores[rows, tokens]
    values = torch.where(values < 0, values * repetition, values / repetition)
    values = values - frequency * counts
    values = values - presence * (counts > 0)
    return scores.index_put((rows, tokens), values)
