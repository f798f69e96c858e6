"""Small numbers of the host on their way to a device, which is not waited for.

Whoever copies from common memory waits until the device has done all that was asked of it before; from pinned memory
the copy is one more thing that is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["listed", "moved"]


def moved(values: Tensor, device: torch.device | str) -> Tensor:
    """`values` of the host on `device`."""
    if torch.device(device).type != "cuda":
        return values.to(device)
    # the allocator keeps the pinned memory until the copy is done
    return values.pin_memory().to(device, non_blocking=True)


def listed(values: Sequence[float | bool], device: torch.device | str, dtype: torch.dtype = torch.int64) -> Tensor:
    """[values] on `device`."""
    return moved(torch.tensor(values, dtype=dtype), device)
