"""The heads of attention, as a config of transformers states them. It knows nothing of tensors."""

from __future__ import annotations

from typing import Any

__all__ = ["head_dim"]


def head_dim(config: Any) -> int:
    """Numbers of one head: what the config says of it, else a head's share of the hidden size."""
    dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return dim
