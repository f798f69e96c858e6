"""The tensors that hold keys and values.

It knows page numbers and slots, not who holds them or what they mean.
Invariant: slot = page * page_size + offset in every layer, for keys and for values; storage is finite numbers from the
start, because a masked slot still enters a product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from parrot_compat.gpu.to_device import listed

__all__ = ["KvStorage"]


class KvStorage:
    """Keys and values of all layers.  `keys[layer]`, `values[layer]`: [slots, kv_heads, dim], contiguous."""

    def __init__(
        self,
        layers: int,
        pages: int,
        page_size: int,
        kv_heads: int,
        dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.pages = pages
        self.page_size = page_size
        # [keys and values, layers, slots, kv_heads, dim]
        both = _zeros(2 * layers * pages * page_size * kv_heads * dim, dtype, torch.device(device))
        both = both.view(2, layers, pages * page_size, kv_heads, dim)
        self.keys: tuple[Tensor, ...] = both[0].unbind(0)
        self.values: tuple[Tensor, ...] = both[1].unbind(0)
        # The same memory, a page as one row: [2 * layers, pages, page_size * kv_heads * dim]
        self._paged = both.view(2 * layers, pages, page_size * kv_heads * dim)

    def copy_pages(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy page to page, (source, target), in all layers, as if one pair after another."""
        for sources, targets in _independent(pairs):
            copied = self._paged.index_select(1, listed(sources, self._paged.device))
            self._paged.index_copy_(1, listed(targets, self._paged.device), copied)


def _zeros(elements: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """On a CPU the memory is the system's zero pages: what no text has used yet costs nothing. (`torch.zeros` writes
    to all of it at once: gigabytes, and seconds at every start.)"""
    if device.type != "cpu":
        return torch.zeros(elements, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(elements * dtype.itemsize, dtype=np.uint8)).view(dtype)


def _independent(pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[list[int], list[int]]]:
    """Cut `pairs` into runs that may be copied at once: no pair of a run reads or writes what an earlier one wrote.

    Longer chains are rare: a row preempted while a step is planned leaves a copy into a page that another row is given.
    """
    sources: list[int] = []
    targets: dict[int, None] = {}
    for source, target in pairs:
        if source in targets or target in targets:
            yield sources, list(targets)
            sources, targets = [], {}
        sources.append(source)
        targets[target] = None
    if sources:
        yield sources, list(targets)
