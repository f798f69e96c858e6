"""The real server with a scripted engine, in a thread of its own: what it was asked, what it did, and, where a
test says so, a line in front of it that refuses plans, breaks, or changes what is pushed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import INSTANT, ScriptedEngine, Speed
from parrot_compat.core.errors import EngineError
from parrot_compat.core.events import CallFailed, CallFinished, CallPlaced, Event, PlanEnded
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.integrations.application.loop_thread import LoopThread
from parrot_compat.integrations.langchain.planner import planner
from parrot_compat.integrations.plans.book import PlanBook
from parrot_compat.integrations.plans.closing import closes_sent
from parrot_compat.server.app import create_app
from parrot_compat.server.listening import Listener
from tests.integrations.strangers import is_a_stranger

GRAPHS = "/v1/parrot/graphs"
CHAT = "/v1/chat/completions"
PATIENCE_S = 60.0
BACKGROUND = frozenset({"parrot-plan", "parrot-claim", "parrot-capabilities"})
"""Threads that work for apps and are not waited for by them."""


def say(prompt: str) -> str:
    """An answer that shows every change of its prompt. A prompt that says FAIL makes the engine fail, one that offers
    tools gets a call of one until it has the tool's answer, and one that begins with JSON an object."""
    if "FAIL" in prompt:
        raise EngineError(f"the engine failed on {prompt[-40:]!r}")
    digits = hashlib.sha1(prompt.encode()).hexdigest()[:12]
    if "tools\n[" in prompt and "tool\nfound" not in prompt:
        return '<tool_call>\n{"name": "look_up", "arguments": {"word": "' + digits + '"}}\n</tool_call>'
    if prompt.rpartition("user\n")[2].startswith("JSON"):
        inner = {"city": f"city-{digits}"}
        return json.dumps({"name": f"ans-{digits}", "age": int(digits[:3], 16), "home": inner})
    return "-".join(["ans", *digits])


@dataclass
class Line:
    """What stands between the app and the server."""

    refuse: int | None = None
    """Status with which plans are refused, by something that never heard of them."""
    html: bool = False
    """Plans are answered by a page, as a proxy would."""
    break_after: int | None = None
    """Events after which the line of a plan breaks."""
    change: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """What becomes of every event of a plan."""
    posted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Path and body of what came."""

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["method"] != "POST":
                await app(scope, receive, send)
                return
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            self.posted.append((scope["path"], json.loads(body)))
            whole = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def again() -> MutableMapping[str, Any]:
                return next(whole, None) or await receive()

            if scope["path"] != GRAPHS:
                await app(scope, again, send)
            elif self.refuse is not None:
                await _answer(send, self.refuse, "application/json", b'{"detail":"Not Found"}')
            elif self.html:
                await _answer(send, 200, "text/html", b"<html>welcome</html>")
            else:
                await app(scope, again, self._on(send))

        return wrapped

    def _on(self, send: Send) -> Send:
        events = 0

        async def on(message: MutableMapping[str, Any]) -> None:
            nonlocal events
            if message["type"] == "http.response.body" and message.get("body", b"").startswith(b"data: {"):
                if events == self.break_after:
                    raise ConnectionResetError("the line of the plan breaks here")
                events += 1
                if self.change is not None:
                    changed = self.change(json.loads(message["body"].removeprefix(b"data: ")))
                    message = {**message, "body": b"data: " + json.dumps(changed).encode() + b"\n\n"}
            await send(message)

        return on


async def _answer(send: Send, status: int, kind: str, body: bytes) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class PlanServer:
    def __init__(self, speed: Speed = INSTANT, book: PlanBook = planner.book) -> None:
        """`book`: of the planner whose plans come here."""
        self.line = Line()
        self._book = book
        self.url = ""
        self._speed = speed
        self._generated: list[str] = []
        self._ended: list[PlanEnded] = []
        self._running: set[tuple[str, str]] = set()
        self.most_at_once = 0
        """Calls that were with the engine at one time."""

    def _script(self, prompt: str) -> str:
        self._generated.append(prompt)
        return say(prompt)

    def _hear(self, event: Event) -> None:
        if isinstance(event, PlanEnded):
            self._ended.append(event)
        if isinstance(event, CallPlaced):
            self._running.add((event.session, event.call))
            self.most_at_once = max(self.most_at_once, len(self._running))
        if isinstance(event, CallFinished | CallFailed):
            self._running.discard((event.session, event.call))

    @contextmanager
    def running(self) -> Iterator[PlanServer]:
        self._book.reset()  # plans that other servers had are not waited for
        self._loop, stack = LoopThread("test server"), AsyncExitStack()
        try:
            self._loop.run(stack.enter_async_context(self._serving()))
            yield self
            self.resume()
            self._loop.run(stack.aclose())
            self._manager.check()
        finally:
            self._loop.close()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        info = EngineInfo(name="scripted-0", model="org/scripted", context_tokens=8192, obeys_formats=True)
        self._engine = ScriptedEngine(self._script, info, speed=self._speed)
        fleet, ready = Fleet(), asyncio.Event()
        fleet.add(self._engine, self._engine.tokenizer)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self.line.wrap(served)(scope, receive, send)

        async with Manager(fleet) as self._manager:
            self._manager.events.subscribe(self._hear)
            served = create_app(self._manager)
            with Listener("127.0.0.1", 0) as listener:
                serving = asyncio.create_task(listener.serve(app, drain_s=0, on_ready=ready.set))
                await ready.wait()
                self.url = f"{listener.url}/v1"
                is_a_stranger(self.url)
                try:
                    yield
                finally:
                    listener.stop()
                    await serving

    # ---- for tests -------------------------------------------------------------------------------

    def forget(self) -> None:
        """As it was when it was made, for the next test: nothing of the one before is still to come."""
        self._end_all()
        self._book.reset()
        self.line = Line()
        self._generated.clear()
        self._ended.clear()
        self.most_at_once = 0

    def _end_all(self) -> None:
        """What apps do behind their own backs is done, and what they have left here is closed: a plan whose acceptance
        an app has not heard would be counted when its time is over, in the midst of another test."""
        assert self.until(lambda: not any(thread.name in BACKGROUND for thread in threading.enumerate()))
        assert closes_sent(PATIENCE_S)

        async def close() -> None:
            for session in self._manager.sessions():
                await session.close()

        self._loop.run(close())

    def stall(self) -> None:
        """Nothing is generated until `resume`."""
        self._loop.run(_called(self._engine.stall))

    def resume(self) -> None:
        self._loop.run(_called(self._engine.resume))

    def generated(self) -> list[str]:
        """Every prompt that was generated for, planned or asked, in no order."""
        return sorted(self._generated)

    def asked(self, path: str = CHAT) -> list[dict[str, Any]]:
        """Bodies that were sent to a path, in order."""
        return [body for to, body in self.line.posted if to == path]

    def sessions(self) -> set[str | None]:
        """The names of those that are open."""

        async def names() -> set[str | None]:
            return {session.name for session in self._manager.sessions()}

        return self._loop.run(names())

    def all_closed(self) -> bool:
        """Wait until the server has heard of the end of every plan that it had accepted when its run ended."""
        accepted = sum(record.accepted_s is not None for record in self._book.records())
        return self.until(lambda: len(self._ended) >= accepted)

    def until(self, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                return False
            threading.Event().wait(0.002)
        return True

    @property
    def planned(self) -> int:
        """Calls in plans that have ended."""
        return sum(plan.calls for plan in self._ended)

    @property
    def used(self) -> int:
        return sum(plan.taken + plan.claimed for plan in self._ended)

    @property
    def wasted(self) -> int:
        """Tokens drawn for planned calls that nobody took."""
        return sum(plan.wasted_tokens for plan in self._ended)


async def _called(act: Callable[[], object]) -> None:
    act()
