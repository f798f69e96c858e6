"""Rotary positions: cosines and sines of every position, with Hugging Face's numbers.

It knows frequencies and positions, nothing of layers or heads. The invariant: the row of a position is the same bits
whenever it is made and whatever else is in the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from parrot_compat.gpu.kernels import Positions
from parrot_compat.gpu.layers.heads import head_dim
from parrot_compat.gpu.to_device import moved

if TYPE_CHECKING:
    from parrot_compat.gpu.batch import Batch

__all__ = ["GROWING", "GrowingRotary", "Rotary", "frequencies", "rotary", "stated_rope"]

GROWING = frozenset({"dynamic", "longrope"})
"""Scalings that depend on the length of the text."""
MOST_LENGTHS = 4096
"""Lengths whose frequencies are kept: a few hundred bytes each."""

# transformers is typed in parts.
_scalings: Mapping[str, Callable[..., tuple[Tensor, float]]] = ROPE_INIT_FUNCTIONS


def frequencies(config: Any, layer_type: str = "", text_tokens: int | None = None) -> tuple[Tensor, float]:
    """[rotated / 2] float32 and the factor on cosine and sine. `layer_type` where the config has several; `text_tokens`
    where they depend on the length of the text."""
    stated = stated_rope(config, layer_type)
    kind = stated.get("rope_type", "default")
    if kind != "default":
        asked: dict[str, Any] = {"layer_type": layer_type} if layer_type else {}
        if text_tokens is not None:  # a tensor, as transformers' own modules give it: it rounds otherwise than a number
            asked["seq_len"] = torch.tensor(text_tokens)
        return _scalings[kind](config, torch.device("cpu"), **asked)
    rotated = int(head_dim(config) * stated.get("partial_rotary_factor", 1.0))
    return 1.0 / (stated["rope_theta"] ** (torch.arange(0, rotated, 2, dtype=torch.float) / rotated)), 1.0


def stated_rope(config: Any, layer_type: str = "") -> Mapping[str, Any]:
    stated: Mapping[str, Any] = config.rope_parameters[layer_type] if layer_type else config.rope_parameters
    return stated


def rotary(config: Any, layer_type: str, dtype: torch.dtype, device: torch.device) -> Rotary | GrowingRotary:
    if stated_rope(config, layer_type).get("rope_type") in GROWING:
        return GrowingRotary(lambda tokens: frequencies(config, layer_type, tokens), dtype, device)
    return Rotary(*frequencies(config, layer_type), dtype, device)


class Rotary:
    """The table of one scaling: `cos`, `sin` [positions, rotated / 2]. It grows with the longest text seen."""

    FIRST = 2048

    def __init__(self, inverse: Tensor, factor: float, dtype: torch.dtype, device: torch.device) -> None:
        self._inverse = inverse
        self._factor = factor
        self._dtype = dtype
        self._device = device
        self.cos = self.sin = torch.empty(0, len(inverse))
        self.cover(self.FIRST)

    @property
    def rotated(self) -> int:
        """How many numbers of each head are rotated."""
        return 2 * len(self._inverse)

    def places(self, batch: Batch) -> Positions:
        self.cover(max(batch.attention.kv_lengths) + 1)
        return Positions(positions=batch.positions, cos=self.cos, sin=self.sin)

    def cover(self, positions: int) -> None:
        """Have at least `positions` rows."""
        if positions <= len(self.cos):
            return
        longer = max(positions, 2 * len(self.cos))
        angles = torch.arange(longer, dtype=torch.float)[:, None] * self._inverse
        self.cos = (angles.cos() * self._factor).to(self._device, self._dtype)
        self.sin = (angles.sin() * self._factor).to(self._device, self._dtype)


class GrowingRotary:
    """A scaling whose frequencies depend on the length of the text. They are those of Hugging Face's `generate`: the
    prompt's for its tokens, and for each drawn token those of the text that ends with it. So they hang on the position
    and on the length of the prompt, and on nothing that happens later."""

    def __init__(
        self, frequencies_of: Callable[[int], tuple[Tensor, float]], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._frequencies_of = lru_cache(maxsize=MOST_LENGTHS)(frequencies_of)
        self._dtype = dtype
        self._device = device

    def places(self, batch: Batch) -> Positions:
        inverse, positions, factors = [], [], []
        starts = batch.attention.query_starts
        for row, end in enumerate(batch.attention.kv_lengths):
            first, prompt = end - (starts[row + 1] - starts[row]), batch.prompt_tokens[row]
            for begin, until in _stretches(first, end, prompt):
                own, factor = self._frequencies_of(max(prompt, until))
                inverse.append(own.expand(until - begin, -1))
                positions.append(torch.arange(begin, until, dtype=torch.float))
                factors += [factor] * (until - begin)
        angles = torch.cat(positions)[:, None] * torch.cat(inverse)
        scale = torch.tensor(factors)[:, None]
        return Positions(
            positions=torch.arange(len(angles), device=self._device),
            cos=moved((angles.cos() * scale).to(self._dtype), self._device),
            sin=moved((angles.sin() * scale).to(self._dtype), self._device),
        )


def _stretches(first: int, end: int, prompt: int) -> Iterator[tuple[int, int]]:
    """[begin, until) stretches of positions that have the same frequencies."""
    if first < prompt:
        yield first, min(end, prompt)
    for position in range(max(first, prompt), end):
        yield position, position + 1
