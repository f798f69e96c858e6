"""A real server in front of a scripted engine: what it takes is the network, the server and the script's own time.

    python -m recipes.benchmarks.scripted_server --port 8001 --token-ms 1

Its answers are words made from a hash of the prompt, so that a prompt which differs anywhere has another answer. A
prompt that offers tools is answered with a call of the first, until there is the answer of a tool in it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine, Speed
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.server.app import create_app
from parrot_compat.server.listening import Listener

WORDS = 10


def words_of(prompt: str) -> str:
    head, offered, rest = prompt.partition("tools\n[")
    if offered and head in ("", "<|turn|>") and "tool\n" not in rest:
        return called(json.JSONDecoder().raw_decode(f"[{rest}")[0][0]["function"])
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    return " ".join(digest[at : at + 5] for at in range(0, 5 * WORDS, 5))


def called(function: dict[str, Any]) -> str:
    """A call of a tool, in the form that the server reads; of each parameter the first value that may be."""
    properties = function["parameters"]["properties"]
    arguments = {name: schema.get("enum", ["something"])[0] for name, schema in properties.items()}
    return f"<tool_call>\n{json.dumps({'name': function['name'], 'arguments': arguments})}\n</tool_call>"


async def serve(port: int, token_s: float, chunk_tokens: int = 8) -> None:
    info = EngineInfo(name="scripted", model="scripted", context_tokens=65_536, obeys_formats=True)
    speed = Speed(step_s=token_s, row_share=0.0, chunk_tokens=chunk_tokens)
    engine = ScriptedEngine(words_of, info, speed=speed)
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
    parser.add_argument("--chunk-tokens", type=int, default=8, help="tokens that are handed out at once (default 8)")
    options = parser.parse_args(argv)
    try:
        import uvloop  # as `parrot serve` has it, where it is installed

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with suppress(KeyboardInterrupt), runner:
        runner.run(serve(options.port, options.token_ms / 1000, options.chunk_tokens))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
