"""Values of JSON: which of those that a reader lets pass a writer can write.

It knows nothing of what they stand for.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["can_be_sent_back"]

_MOST_BITS = 1024  # as many as the largest float has


def can_be_sent_back(value: Any) -> bool:
    """JSON has no NaN, and Python writes no number of thousands of digits; its readers let both pass where no type
    says otherwise."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
        elif isinstance(value, float):
            if not math.isfinite(value):
                return False
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            return False
    return True
