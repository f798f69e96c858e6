"""A real server in front of a scripted engine: what it takes is the network, the server and the script's own time.

    python -m recipes.benchmarks.scripted_server --port 8001 --token-ms 1

Its answers are words made from a hash of the prompt, so that a prompt which differs anywhere has another answer.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import signal
from collections.abc import Callable
from contextlib import suppress

from parrot_compat.core.engines.scripted import ScriptedEngine, Speed
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.server.app import create_app
from parrot_compat.server.listening import Listener

WORDS = 10


def words_of(prompt: str) -> str:
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    return " ".join(digest[at : at + 5] for at in range(0, 5 * WORDS, 5))


async def serve(port: int, token_s: float) -> None:
    engine = ScriptedEngine(words_of, speed=Speed(step_s=token_s, row_share=0.0))
    fleet = Fleet()
    fleet.add(engine, engine.tokenizer)
    with Listener("127.0.0.1", port) as listener:
        async with Manager(fleet) as manager:
            _stop_on_signals(listener.stop)
            await listener.serve(
                create_app(manager), drain_s=1, on_ready=lambda: print(f"{listener.url}/v1", flush=True)
            )


def _stop_on_signals(stop: Callable[[], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # on Windows Ctrl-C arrives as KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, stop)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any free one)")
    parser.add_argument("--token-ms", type=float, default=1.0, help="how long a token (a character) takes (default 1)")
    options = parser.parse_args(argv)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(options.port, options.token_ms / 1000))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
