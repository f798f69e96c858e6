"""A server for a recipe: the one that is named, or one of its own for as long as the recipe runs.

    with server(base_url, "builtin:tiny") as url:
        ...

This is also how a test suite or a notebook can bring its own server along: start `parrot serve` on any free
port, wait for the file it writes when it answers, and interrupt it at the end. `far_away` puts a server at a
distance.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import openai
from rich.console import Console
from rich.text import Text

from parrot_compat.core.errors import ParrotError

BENCHMARKS = Path(__file__).parent / "benchmarks"
_NAMES = "HOST PORT API_KEYS API_KEYS_FILE READY_FILE UPSTREAM UPSTREAM_API_KEY MODEL MORE_MODELS SERVED_MODEL_NAME"
_OF_ANOTHER = frozenset(f"PARROT_{name}" for name in _NAMES.split())
"""Where another server listens, who may ask it, and what it serves."""
LOAD_S = 600
STOP_S = 20


class ServerFailed(Exception):
    """The server ended before it answered, or does not answer; the message is what is known of it."""


def add_server_options(parser: argparse.ArgumentParser) -> None:
    where = os.environ.get("PARROT_BASE_URL") or None
    parser.add_argument("--base-url", default=where, help="a server that runs already, like http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default=None, help="model to ask for; without --base-url: to serve (builtin:tiny)")


_owner = 0
"""The process whose servers are stopped by the handler."""


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that what it has started is stopped. By itself it would end the
    process at once, and its servers would go on. Handlers are the main thread's: in another nothing changes."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is _end:  # that of a block around this one
        yield
        return
    global _owner
    _owner = os.getpid()
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: one that is not Python's, and cannot be named


def _end(number: int, frame: object) -> None:
    if os.getpid() != _owner:  # a forked child inherits the handler, and none of the servers
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    signal.signal(number, signal.SIG_IGN)  # a second one must not keep the servers from being stopped
    raise SystemExit(128 + number)


def at_least_one(text: str) -> int:
    """The type of an option that counts things."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1 is needed")
    return number


@contextmanager
def server(base_url: str | None, model: str | None = None) -> Iterator[str]:
    """The URL to talk to. Without `base_url` a server is started, and stopped when the block ends. What goes wrong
    with the server ends the recipe with one message."""
    console = Console(stderr=True)
    try:
        with ending_on_sigterm():
            if base_url is not None:
                yield base_url
            else:
                with _own_server(model or "builtin:tiny", console) as url:
                    yield url
    except (ServerFailed, openai.APIError, ParrotError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def served_model(base_url: str, wanted: str | None = None) -> str:
    """The model to ask for: the one that is wanted, else the first that the server has. Errors: `ServerFailed`."""
    if wanted is not None:
        return wanted
    client = openai.OpenAI(base_url=base_url, api_key=os.environ.get("PARROT_API_KEY") or "none")
    try:
        first = next(iter(client.models.list()), None)
    except openai.APIConnectionError:
        raise ServerFailed(f"no answer from {base_url}/models") from None
    if first is None:
        raise ServerFailed(f"{base_url} serves no model")
    return first.id


@contextmanager
def far_away(base_url: str, rtt_ms: float) -> Iterator[str]:
    """The same server, `rtt_ms` of round trip further away: through the delay proxy, in a process of its own."""
    there = urlsplit(base_url)
    if there.scheme != "http" or there.hostname is None:
        raise SystemExit(f"{base_url} cannot be put at a distance: the proxy forwards http:// only")
    command = [str(BENCHMARKS / "delay_proxy.py"), "--to", f"{there.hostname}:{there.port or 80}"]
    with script([*command, "--rtt-ms", f"{rtt_ms:g}"]) as first_line:
        here = first_line.split()[0]
        yield there._replace(netloc=here).geturl()


@contextmanager
def script(command: list[str]) -> Iterator[str]:
    """A Python script that runs as long as the block; what it prints first says that it is ready."""
    with ending_on_sigterm():
        command = [sys.executable, *command]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            first_line = process.stdout.readline()
            if not first_line:
                raise ServerFailed(f"{command[1]} ended before it was ready")
            yield first_line.strip()
        finally:
            _stop(process)
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def _own_server(model: str, console: Console) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="parrot-") as folder:
        log, ready = Path(folder, "log"), Path(folder, "ready.json")
        command = [sys.executable, "-m", "parrot_compat", "serve", "--model", model]
        command += ["--port", "0", "--ready-file", str(ready), "--drain", "1"]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command, env=_own_environment(), stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
            )
        try:
            url = _wait(process, ready, log, console)
            console.print(f"server  {url}", style="dim", highlight=False)
            yield url
        finally:
            _stop(process)


def _own_environment() -> dict[str, str]:
    """Without what belongs to another server. How one computes (its device, its share of memory) is as it is set."""
    return {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER}


def _wait(process: subprocess.Popen[bytes], ready: Path, log: Path, console: Console) -> str:
    began = time.monotonic()
    with console.status("starting the server") as status:
        while not ready.exists():
            lines = log.read_text(errors="replace").strip().splitlines()
            if process.poll() is not None:
                raise ServerFailed("\n".join(["the server did not start:", *lines[-40:]]))
            if time.monotonic() - began > LOAD_S:
                raise ServerFailed("\n".join([f"the server was not ready after {LOAD_S} s:", *lines[-40:]]))
            status.update(Text(lines[-1] if lines else "starting the server"))
            time.sleep(0.1)
    return str(json.loads(ready.read_text())["base_url"])


def _stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
