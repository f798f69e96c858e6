"""A live server for tests: the real application on a real socket, with a scripted engine behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import INSTANT, Script, ScriptedEngine, Speed
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Limits, Manager
from parrot_compat.core.policy import Policy
from parrot_compat.core.tokenizer import Tokenizer
from parrot_compat.server.app import create_app
from parrot_compat.server.auth import Keys
from parrot_compat.server.limits import RequestLimits
from parrot_compat.server.listening import Listener

CAPACITY = 100_000
ANSWERS = {
    "capital of France": "Paris is the capital of France.",
    "count": "one two three four five six seven eight nine ten",
    "snow": "雪 ☃ \u2028 \x85 \U0001d530",
    "": "I have no script for that.",
}


@dataclass(frozen=True)
class Live:
    url: str
    engine: ScriptedEngine
    manager: Manager
    listener: Listener


@asynccontextmanager
async def live(
    script: Script = ANSWERS,
    *,
    keys: Sequence[str] = (),
    limits: RequestLimits | None = None,
    keep_alive_s: float = 15.0,
    speed: Speed = INSTANT,
    context_tokens: int = 4096,
    tokenizer: Tokenizer | None = None,
    aliases: Mapping[str, str] | None = None,
    origins: Sequence[str] = (),
    more_models: Sequence[str] = (),
    engine_type: type[ScriptedEngine] = ScriptedEngine,
    policy: Policy | None = None,
    admits: Limits | None = None,
) -> AsyncIterator[Live]:
    """`more_models` answer with their own names."""
    engine = engine_type(
        script,
        EngineInfo(name="scripted-0", model="org/scripted", context_tokens=context_tokens, capacity_tokens=CAPACITY),
        speed=speed,
    )
    fleet = Fleet()
    fleet.add(engine, tokenizer or engine.tokenizer)
    for model in more_models:
        other = ScriptedEngine(lambda _, said=model: said, EngineInfo(name=model, model=model, context_tokens=512))  # type: ignore[misc]
        fleet.add(other, other.tokenizer)
    ready = asyncio.Event()
    async with Manager(fleet, policy=policy, limits=admits) as manager:
        app = create_app(
            manager, keys=Keys(keys), limits=limits, keep_alive_s=keep_alive_s, aliases=aliases, origins=origins
        )
        with Listener("127.0.0.1", 0, limits=limits) as listener:
            serving = asyncio.create_task(listener.serve(app, drain_s=0, on_ready=ready.set))
            try:
                await ready.wait()
                yield Live(listener.url, engine, manager, listener)
            finally:
                listener.stop()
                await serving


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of an answer that has to be one: OpenAI's envelope and nothing else."""
        data = self.json()
        assert list(data) == ["error"], data
        error: dict[str, Any] = data["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert isinstance(error["message"], str) and error["message"]
        assert isinstance(error["type"], str) and error["type"]
        return error


async def connect(
    url: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str | None] | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send one request, byte for byte, and leave the connection open."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    sent = {"host": f"{host}:{port}", "connection": "close", "content-length": str(len(body)), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items() if value is not None)]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    await writer.drain()
    return reader, writer


async def send(live: Live, method: str, path: str, body: object = b"", headers: dict[str, str] | None = None) -> Reply:
    """One request and its whole answer. A `body` that is not bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    reader, writer = await connect(live.url, method, path, raw, headers)
    try:
        answer = await reader.read()
    finally:
        writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if named.get("transfer-encoding") == "chunked":
        rest = _unchunked(rest)
    return Reply(int(status.split()[1]), named, rest)


def _unchunked(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        whole, data = whole + data[:length], data[length + 2 :]
    return whole


def events_of(reply: Reply) -> list[Any]:
    """The events of a stream that ended well; comments are left out."""
    blocks = [block for block in reply.body.decode().split("\n\n") if block and not block.startswith(":")]
    assert blocks[-1] == "data: [DONE]", blocks[-1]
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells. The caller bounds the time."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)
