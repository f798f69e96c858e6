"""An event loop whose time is a test's: minutes of patience in a moment, however busy the machine is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Leaping", "leaping"]

T = TypeVar("T")


class Leaping(asyncio.SelectorEventLoop):
    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    async def leap(self, seconds: float) -> None:
        """Returns when everything that was due by then has had its turn."""
        self.now_s += seconds
        for _ in range(5):
            await asyncio.sleep(0)


def leaping(work: Callable[[Leaping], Coroutine[Any, Any, T]]) -> T:
    """`work`, on a loop of its own. What it leaves running is cancelled."""
    loop = Leaping()

    async def all_of_it() -> T:
        try:
            return await work(loop)
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    try:
        return loop.run_until_complete(all_of_it())
    finally:
        loop.close()
