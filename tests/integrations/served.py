"""Our own server in a thread of its own: the real application, manager and socket, over scripted or real engines.

A thread, because LangChain's synchronous calls block the loop of the test that makes them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.server.app import create_app
from parrot_compat.server.listening import Listener
from tests.integrations.strangers import is_a_stranger

MODELS = ("first-model", "second-model")
CONTEXT_TOKENS = 4096


def script(prompt: str) -> str:
    """Says the last message back: the same prompt has the same answer, another has another."""
    said = prompt.rpartition("user\n")[2].removesuffix("assistant\n").strip()
    return f"you said: {said}" * (20 if "at length" in said else 1)


@dataclass
class Served:
    url: str
    engines: tuple[ScriptedEngine, ...]
    manager: Manager
    loop: asyncio.AbstractEventLoop

    @property
    def generated(self) -> int:
        return sum(engine.generated for engine in self.engines)

    def open_calls(self) -> int:
        """As the server's own thread sees it."""

        async def count() -> int:
            return self.manager.open_calls

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(60)

    def sessions(self) -> list[str | None]:
        """The names of those that are open."""

        async def names() -> list[str | None]:
            return [session.name for session in self.manager.sessions()]

        return asyncio.run_coroutine_threadsafe(names(), self.loop).result(60)


async def scripted_fleet() -> Fleet:
    fleet = Fleet()
    for number, model in enumerate(MODELS):
        info = EngineInfo(name=f"engine-{number}", model=model, context_tokens=CONTEXT_TOKENS)
        engine = ScriptedEngine(script, info)
        fleet.add(engine, engine.tokenizer)
    return fleet


async def builtin_fleet() -> Fleet:
    """Both models are builtin:tiny, each in an engine of its own in this process."""
    from parrot_compat.gpu.config import EngineConfig
    from parrot_compat.gpu.engine import TorchEngine
    from parrot_compat.gpu.models.weights import locate
    from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer

    fleet = Fleet()
    tokenizer = HuggingFaceTokenizer(locate("builtin:tiny"))
    for number, model in enumerate(MODELS):
        engine = TorchEngine(
            EngineConfig(
                model="builtin:tiny",
                name=f"engine-{number}",
                served_model_name=model,
                device="cpu",
                max_model_len=CONTEXT_TOKENS,
                kv_tokens=2 * CONTEXT_TOKENS,
            )
        )
        await engine.start()
        fleet.add(engine, tokenizer)
    return fleet


@contextmanager
def served(make_fleet: Callable[[], Awaitable[Fleet]] = scripted_fleet) -> Iterator[Served]:
    started: list[Served] = []
    is_up = threading.Event()
    stops: list[Listener] = []

    async def run() -> None:
        fleet = await make_fleet()
        engines = [member.engine for member in fleet if isinstance(member.engine, ScriptedEngine)]
        async with Manager(fleet) as manager:
            with Listener("127.0.0.1", 0) as listener:
                stops.append(listener)
                is_a_stranger(listener.url)
                started.append(Served(f"{listener.url}/v1", tuple(engines), manager, asyncio.get_running_loop()))
                await listener.serve(create_app(manager), drain_s=0, on_ready=is_up.set)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert is_up.wait(280), "the server did not start"
        yield started[0]
    finally:
        for listener in stops:
            listener.stop()
        thread.join(60)
