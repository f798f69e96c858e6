"""What torch computes while something is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

READING = {"aten.resolve_conj.default", "aten.resolve_neg.default"}
"""What `tolist` asks of a tensor made in inference mode before it reads: nothing for ordinary numbers."""


class Computed(TorchDispatchMode):  # type: ignore[misc]  # torch has no types there
    """`operations`: every operation on tensors, by name: views and copies too."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if str(func) not in READING:
            self.operations.append(str(func))
        return func(*args, **(kwargs or {}))
