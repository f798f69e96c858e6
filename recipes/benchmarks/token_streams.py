"""Token ids in, tokens and their times out: over HTTP, or straight from an engine's port.

For measuring engines, so the client does next to nothing while a stream runs: bytes and their times are kept, and
read once it is over.

The invariant: a time is that of the moment at which the token's bytes had arrived here; the tokens are the server's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from parrot_compat.core.call import ResolvedSampling, Sampling
from parrot_compat.core.engine import ContextId, Engine, Generate
from parrot_compat.core.prompt import Tokens

from .servers import MODEL

__all__ = ["EngineStreams", "HttpStreams", "Streams", "TokenStream"]

READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class TokenStream:
    """One generation. `arrivals` are (seconds of `time.perf_counter`, how many tokens)."""

    sent: float
    arrivals: tuple[tuple[float, int], ...]
    tokens: tuple[int, ...]

    @property
    def first_s(self) -> float:
        return self.arrivals[0][0] - self.sent

    def arrived_between(self, begin: float, end: float) -> int:
        """After `begin`, and not after `end`."""
        return sum(count for moment, count in self.arrivals if begin < moment <= end)


class Streams(Protocol):
    async def run(self, prompt: Sequence[int], max_tokens: int) -> TokenStream:
        """Greedy, and exactly so many tokens."""
        ...


class HttpStreams:
    """`/v1/completions` of any server that knows `return_token_ids`; a connection for each stream."""

    def __init__(self, base_url: str) -> None:
        self._host, _, port = base_url.removeprefix("http://").removesuffix("/v1").rpartition(":")
        self._port = int(port)

    async def run(self, prompt: Sequence[int], max_tokens: int) -> TokenStream:
        asked = {"model": MODEL, "prompt": list(prompt), "max_tokens": max_tokens, "temperature": 0, "stream": True}
        body = json.dumps(asked | {"ignore_eos": True, "return_token_ids": True}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: {self._host}:{self._port}\r\nconnection: close\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        reader, writer = await asyncio.open_connection(self._host, self._port)
        got: list[tuple[float, bytes]] = []
        sent = time.perf_counter()
        try:
            writer.write(head.encode() + body)
            while data := await reader.read(READ_BYTES):
                got.append((time.perf_counter(), data))
        finally:
            writer.close()
        return _read(sent, got)


class EngineStreams:
    """An engine's port, without manager or HTTP."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._contexts = 0

    async def run(self, prompt: Sequence[int], max_tokens: int) -> TokenStream:
        self._contexts += 1
        context = ContextId(self._contexts)
        generate = Generate(context=context, content=Tokens(tuple(prompt)), sampling=_greedy(max_tokens))
        arrivals: list[tuple[float, int]] = []
        tokens: list[int] = []
        sent = time.perf_counter()
        async for chunk in self._engine.generate(generate):
            if chunk.tokens:
                arrivals.append((time.perf_counter(), len(chunk.tokens)))
                tokens += chunk.tokens
        await self._engine.free(context)
        return TokenStream(sent, tuple(arrivals), tuple(tokens))


def _greedy(max_tokens: int) -> ResolvedSampling:
    asked = Sampling(max_tokens=max_tokens, temperature=0, ignore_eos=True)
    return asked.resolve(Sampling(), room=max_tokens, seed=0)


def _read(sent: float, got: list[tuple[float, bytes]]) -> TokenStream:
    """The events of an HTTP answer, each at the time of its last byte."""
    whole = b"".join(data for _, data in got)
    head, _, rest = whole.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise RuntimeError(f"the server answered {whole[:500].decode(errors='replace')}")
    ends, total = [], 0
    for moment, data in got:
        total += len(data)
        ends.append((total, moment))
    arrivals: list[tuple[float, int]] = []
    tokens: list[int] = []
    at, where = len(head) + 4, 0
    while rest:
        size, _, after = rest.partition(b"\r\n")
        length = int(size, 16)
        at += len(size) + 2 + length
        while ends[where][0] < at and where < len(ends) - 1:
            where += 1
        for line in after[:length].split(b"\n"):
            if line.startswith(b"data: {"):
                ids = _token_ids(json.loads(line[6:]))
                if ids:
                    arrivals.append((ends[where][1], len(ids)))
                    tokens += ids
        rest, at = after[length + 2 :], at + 2
    return TokenStream(sent, tuple(arrivals), tuple(tokens))


def _token_ids(event: dict[str, object]) -> list[int]:
    if "error" in event:
        raise RuntimeError(f"the server answered {event['error']}")
    choices = event.get("choices")
    assert isinstance(choices, list)
    return list(choices[0].get("token_ids") or ()) if choices else []
