"""Where planning is off for one chain: its config's metadata says so.

It knows metadata and nothing of plans. (For the process, and for a block of code: `plans.switches`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parrot_compat.integrations.plans.switches import OFF

__all__ = ["METADATA", "is_switched_off"]

METADATA = "parrot_planning"


def is_switched_off(metadata: Mapping[str, Any] | None) -> bool:
    """`chain.with_config(metadata={"parrot_planning": False})`."""
    return bool(metadata) and (metadata or {}).get(METADATA, True) in (False, *OFF)
