"""Rotary positions: cosines and sines of every position, computed once, with Hugging Face's numbers.

It knows frequencies and positions, nothing of layers or heads. The invariant: the row of a position is the same bits
whenever and however long the table was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

__all__ = ["Rotary", "frequencies"]

# transformers is typed in parts.
_scalings: Mapping[str, Callable[..., tuple[Tensor, float]]] = ROPE_INIT_FUNCTIONS


def frequencies(config: Any, layer_type: str = "") -> tuple[Tensor, float]:
    """[rotated / 2] float32 and the factor on cosine and sine. `layer_type` where the config has several."""
    stated = config.rope_parameters[layer_type] if layer_type else config.rope_parameters
    kind = stated.get("rope_type", "default")
    if kind != "default":
        return _scalings[kind](config, torch.device("cpu"), **({"layer_type": layer_type} if layer_type else {}))
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rotated = int(dim * stated.get("partial_rotary_factor", 1.0))
    return 1.0 / (stated["rope_theta"] ** (torch.arange(0, rotated, 2, dtype=torch.float) / rotated)), 1.0


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

    def cover(self, positions: int) -> None:
        """Have at least `positions` rows."""
        if positions <= len(self.cos):
            return
        longer = max(positions, 2 * len(self.cos))
        angles = torch.arange(longer, dtype=torch.float)[:, None] * self._inverse
        self.cos = (angles.cos() * self._factor).to(self._device, self._dtype)
        self.sin = (angles.sin() * self._factor).to(self._device, self._dtype)
