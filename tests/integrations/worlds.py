"""Applications for tests: the same app over a live server and over a manager in the test's own process.

The server, with its own loop, and the embedded manager both run in a thread, so that synchronous tests do not hold
them up. `engine` and `manager` belong to that loop: `inside` calls them there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import INSTANT, ScriptedEngine, Speed
from parrot_compat.core.errors import Cancelled
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Limits, Manager
from parrot_compat.integrations.application.application import Application
from parrot_compat.integrations.application.embedded import EmbeddedHost
from parrot_compat.integrations.application.loop_thread import LoopThread
from parrot_compat.integrations.application.remote_host import connect

if TYPE_CHECKING:
    from parrot_compat.server.limits import RequestLimits

Kind = Literal["remote", "embedded"]
T = TypeVar("T")

CONTEXT_TOKENS = 2000
PATIENCE_S = 60.0


def script(prompt: str) -> str:
    """Says what the last message says, in brackets: who read what can be seen in the answer."""
    said = prompt.rpartition("user\n")[2].removesuffix("assistant\n").strip()
    return f"<{said}>"


@dataclass
class World:
    kind: Kind
    application: Application
    engine: ScriptedEngine
    manager: Manager
    loop: LoopThread
    url: str = ""

    def inside(self, act: Callable[[], T]) -> T:
        async def run() -> T:
            return act()

        return self.loop.run(run())

    def stall(self) -> None:
        self.inside(self.engine.stall)

    def resume(self) -> None:
        self.inside(self.engine.resume)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what no event tells."""
        from tests.server.live import until

        self.loop.run(until(condition))


@contextmanager
def world(
    kind: Kind, speed: Speed = INSTANT, *, limits: RequestLimits | None = None, admits: Limits | None = None
) -> Iterator[World]:
    """`limits`: of the server, where there is one; `admits`: of the manager."""
    with _remote(speed, limits, admits) if kind == "remote" else _embedded(speed, admits) as made:
        try:
            yield made
        finally:
            with suppress(Cancelled):  # the test has closed it
                made.resume()


@contextmanager
def _remote(speed: Speed, limits: RequestLimits | None, admits: Limits | None) -> Iterator[World]:
    from tests.server.live import live

    loop, stack = LoopThread("test server"), AsyncExitStack()
    try:
        served = loop.run(
            stack.enter_async_context(
                live(script, speed=speed, context_tokens=CONTEXT_TOKENS, keep_alive_s=1.0, limits=limits, admits=admits)
            )
        )
        with connect(f"{served.url}/v1") as application:
            yield World("remote", application, served.engine, served.manager, loop, f"{served.url}/v1")
        loop.run(stack.aclose())
        served.manager.check()
    finally:
        loop.close()


@contextmanager
def _embedded(speed: Speed, admits: Limits | None) -> Iterator[World]:
    managers: list[Manager] = []
    engine = ScriptedEngine(
        script, EngineInfo(name="scripted-0", model="org/scripted", context_tokens=CONTEXT_TOKENS), speed=speed
    )

    @asynccontextmanager
    async def start() -> AsyncIterator[Manager]:
        fleet = Fleet()
        fleet.add(engine, engine.tokenizer)
        async with Manager(fleet, limits=admits) as manager:
            managers.append(manager)
            yield manager

    with Application(EmbeddedHost(start)) as application:
        yield World("embedded", application, engine, managers[0], application.loop)
    managers[0].check()
