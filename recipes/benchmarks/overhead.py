"""What a request, and each event of its stream, costs the server in processor time, whatever the engine takes (G10).

    python -m recipes.benchmarks.overhead --write                     # ours, over a scripted engine
    python -m recipes.benchmarks.overhead --base-url http://127.0.0.1:8001/v1 --pid 4711 --alone --name vllm --write

It sends chats of one token (a request), and streams of many (their events, their tokens: a server may put several into
one event), so many at once, and reads what the server's processes have used. Of a server that computes by itself
its engine's processes count too: name the one that speaks HTTP by `--pid` and leave the engine's out by `--alone` (both
vLLM and `parrot serve` have their engines in processes of their own). `--write` keeps the rows in results/overhead.csv,
beside those of other names.

The invariant: what the client uses is not counted, and every event of every stream is received and counted.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from rich.console import Console

from recipes.serving import ending_on_sigterm

from .measured import Measured, update
from .processor_time import Stopwatch, process_s
from .runs import RESULTS

__all__ = ["Costs", "main", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Microseconds of the server's processor time."""

    request_us: float
    """A chat with an answer of one token, whole."""
    stream_us: float
    """One that is streamed."""
    event_us: float
    """Each further event of a stream."""
    token_us: float
    """Each further token of a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    requests: int
    at_once: int
    tokens: int


async def measure(client: openai.AsyncOpenAI, model: str, spent_s: Callable[[], float], load: Load) -> Costs:
    """`spent_s` tells the server's processor seconds so far."""

    async def whole() -> int:
        reply: Any = await client.chat.completions.create(**_asked(model, 1))
        return len(reply.choices)

    async def streamed(tokens: int) -> int:
        stream: Any = await client.chat.completions.create(**_asked(model, tokens), stream=True)
        return sum([1 async for _ in stream])

    await _all(whole, load)  # connections are open, code is warm
    request_s, _ = await _timed(whole, spent_s, load)
    one_s, one = await _timed(lambda: streamed(1), spent_s, load)
    many_s, many = await _timed(lambda: streamed(load.tokens), spent_s, load)
    return Costs(
        request_us=1e6 * request_s / load.requests,
        stream_us=1e6 * one_s / load.requests,
        event_us=1e6 * (many_s - one_s) / max(1, many - one),
        token_us=1e6 * (many_s - one_s) / max(1, load.requests * (load.tokens - 1)),
    )


def _asked(model: str, tokens: int) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief. " * 20}, {"role": "user", "content": "Say something."}]
    return {
        "model": model,
        "messages": messages,
        "max_tokens": tokens,
        "temperature": 0.0,
        "extra_body": {"ignore_eos": True},
    }


async def _timed(one: Callable[[], Awaitable[int]], spent_s: Callable[[], float], load: Load) -> tuple[float, int]:
    before = spent_s()
    events = await _all(one, load)
    return spent_s() - before, events


async def _all(one: Callable[[], Awaitable[int]], load: Load) -> int:
    left = load.requests

    async def worker() -> int:
        nonlocal left
        events = 0
        while left > 0:
            left -= 1
            events += await one()
        return events

    return sum(await asyncio.gather(*(worker() for _ in range(load.at_once))))


@contextmanager
def scripted_server() -> Iterator[tuple[str, int]]:
    """Ours, in a process of its own, over an engine that says each token at once: its URL and its process."""
    command = [sys.executable, "-m", "recipes.benchmarks.scripted_server", "--token-ms", "0", "--chunk-tokens", "1"]
    with ending_on_sigterm():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()
            process.wait(30)
            if process.stdout is not None:
                process.stdout.close()


async def _rounds(url: str, pid: int, options: argparse.Namespace) -> list[Costs]:
    load = Load(requests=options.requests, at_once=options.at_once, tokens=options.tokens)
    watch = Stopwatch([pid])
    spent_s = (lambda: process_s(pid)) if options.alone else lambda: watch.read().servers_s
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        model = options.model or (await client.models.list()).data[0].id
        return [await measure(client, model, spent_s, load) for _ in range(options.rounds)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="a server that runs already")
    parser.add_argument("--pid", type=int, help="its process")
    parser.add_argument("--alone", action="store_true", help="count that process without its children")
    parser.add_argument("--name", default="ours")
    parser.add_argument("--model")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep the rows in results/overhead.csv")
    parser.add_argument("--results", type=Path, default=RESULTS, help="another folder for it")
    options = parser.parse_args(argv)
    if options.base_url is not None:
        if options.pid is None:
            parser.error("--base-url needs --pid: a server does not say which process it is")
        costs = asyncio.run(_rounds(options.base_url, options.pid, options))
    else:
        with scripted_server() as (url, pid):
            costs = asyncio.run(_rounds(url, pid, options))
    load = f"{options.requests} chats, {options.at_once} at once, {options.tokens} tokens"
    measured = [
        Measured(load, options.name, name, "us", [getattr(cost, name) for cost in costs])
        for name in ("request_us", "stream_us", "event_us", "token_us")
    ]
    for one in measured:
        Console().print(f"{options.name}  {one.metric:11} {sorted(one.values)[len(one.values) // 2]:8.1f}")
    if options.write:
        command = ["python", "-m", "recipes.benchmarks.overhead", *(argv if argv is not None else sys.argv[1:])]
        update("overhead", measured, command=command, folder=options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
