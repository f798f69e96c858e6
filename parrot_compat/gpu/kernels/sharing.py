"""Which prefixes the rows of a step read together: what is there, less what does not pay on this device.

It joins `forest` (true prefixes) and `costs` (what they are worth) for one model on one device, and knows nothing of
sequences. The invariant: what it answers changes how keys are read, never which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch

from parrot_compat.gpu.kernels.costs import ALL_SEEN, DeviceCosts, Windows, device_costs, worth_sharing
from parrot_compat.gpu.kernels.forest import ForestRow, SharedPrefix, find_shared
from parrot_compat.gpu.kernels.strips import HeadShape, Tiling
from parrot_compat.gpu.kernels.triton.tiles import tiling

__all__ = ["Sharing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    page_size: int
    shape: HeadShape
    costs: DeviceCosts | None
    """`None`: nobody has measured this device."""
    tiling: Tiling
    """What a step is cut by."""
    windows: Windows = field(default_factory=lambda: ALL_SEEN)
    """Of the model's layers."""

    @classmethod
    def on(
        cls,
        device: torch.device,
        dtype: torch.dtype,
        shape: HeadShape,
        page_size: int,
        windows: Iterable[int | None] = (None,),
    ) -> Sharing:
        """For a CUDA device. `windows`: of each layer, how many keys back a query sees; `None`: all."""
        properties = torch.cuda.get_device_properties(device)
        return cls(
            page_size=page_size,
            shape=shape,
            costs=device_costs(properties.name, str(dtype).removeprefix("torch.")),
            tiling=tiling(shape, properties.multi_processor_count),
            windows=Counter(windows),
        )

    def prefixes(self, rows: Sequence[ForestRow]) -> tuple[SharedPrefix, ...]:
        """A prefix shorter than a private strip would take a partial of each row and save none; rows of more queries
        than a private strip has read alone, so they are nobody's company."""
        starts = [row.shareable for row in rows]
        split = [row if row.queries <= self.tiling.private_queries else replace(row, shareable=0) for row in rows]
        found = find_shared(split, self.page_size, -(-self.tiling.split_keys // self.page_size))
        return worth_sharing(
            found,
            self.page_size,
            self.shape,
            self.costs,
            self.tiling.shared_strips,
            windows=self.windows,
            starts=starts,
        )
