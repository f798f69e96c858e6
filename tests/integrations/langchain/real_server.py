"""The real server with a scripted engine, in a thread of its own, and what it did for an app."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

from parrot_compat.core.events import Event, PlanEnded
from parrot_compat.integrations.langchain.planner import planner
from parrot_compat.integrations.loop_thread import LoopThread
from tests.server.live import live


class RealServer:
    def __init__(self) -> None:
        self._generated: list[str] = []
        self._ended: list[PlanEnded] = []
        self.url = ""

    def _script(self, prompt: str) -> str:
        self._generated.append(prompt)
        return "-".join(["ans", *hashlib.sha1(prompt.encode()).hexdigest()[:12]])

    def _hear(self, event: Event) -> None:
        if isinstance(event, PlanEnded):
            self._ended.append(event)

    @contextmanager
    def running(self) -> Iterator[RealServer]:
        loop, stack = LoopThread("test server"), AsyncExitStack()
        try:
            served = loop.run(stack.enter_async_context(live(self._script, context_tokens=8192)))
            self._manager, self._loop = served.manager, loop
            served.manager.events.subscribe(self._hear)
            self.url = f"{served.url}/v1"
            yield self
            loop.run(stack.aclose())
            served.manager.check()
        finally:
            loop.close()

    def forget(self) -> None:
        self.all_closed()
        planner.book.reset()
        self._generated.clear()
        self._ended.clear()

    def generated(self) -> list[str]:
        """Every prompt that was generated for, planned or asked, in no order."""
        return sorted(self._generated)

    def all_closed(self) -> bool:
        """Wait until the server has heard of the end of every plan that it had accepted when its run ended."""
        accepted = sum(record.accepted_s is not None for record in planner.book.records())
        for _ in range(5000):
            if len(self._ended) >= accepted:
                return True
            threading.Event().wait(0.002)
        return False

    @property
    def planned(self) -> int:
        return sum(plan.calls for plan in self._ended)

    @property
    def used(self) -> int:
        return sum(plan.taken + plan.claimed for plan in self._ended)

    @property
    def wasted(self) -> int:
        return sum(plan.wasted_tokens for plan in self._ended)
