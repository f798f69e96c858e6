"""Small numbers of a device on their way to the host, which goes on meanwhile.

Whoever asks a device for a number waits until it has done all that was asked of it before; a copy into pinned memory
is one more thing that is asked, and an event behind it says when it is done, whatever is asked later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["HostCopies"]


class HostCopies:
    """Copies of tensors of one device, asked for together."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """At least one."""
        self._on_host = list(tensors)
        self._copied: torch.Event | None = None
        if tensors[0].device.type == "cuda":
            self._on_host = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors]
            for to, each in zip(self._on_host, tensors, strict=True):
                to.copy_(each, non_blocking=True)
            self._copied = torch.Event(tensors[0].device)
            self._copied.record()

    def read(self) -> list[list[Any]]:
        """The numbers of each, as nested lists, once they are there."""
        if self._copied is not None:
            self._copied.synchronize()
        return [each.tolist() for each in self._on_host]
