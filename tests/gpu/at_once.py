"""Asking at once: the engine's thread takes up nothing before all of it has been asked.

Commands of one turn of the event loop usually reach the engine together, and do not where the machine is busy: the loop
may stand still between two of them while the engine goes on. A test that is about neighbours asks this way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from parrot_compat.gpu.engine import TorchEngine

__all__ = ["at_once"]


async def at_once(engine: TorchEngine, *asked: Awaitable[Any]) -> list[Any]:
    """What all of `asked` give. Each of them has sent its first command when the engine takes the first of all."""
    steps = engine._steps
    assert steps is not None, f"engine {engine.name!r} has not been started"
    with steps._news:  # commands are put and taken under it; putting them is a matter of this thread alone
        running = [asyncio.ensure_future(each) for each in asked]
        await asyncio.sleep(0)
    return await asyncio.gather(*running)
