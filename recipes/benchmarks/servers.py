"""Servers of a benchmark: launched with equal weights, dtype, KV budget, threads and preloads, and stopped for sure.

It knows command lines and processes, nothing of lanes or workloads. vLLM's launch is the tuned one: every part of it
was measured, and its own defaults lose up to 47 % on a CPU.

The invariant: a server that is yielded answers; when its block ends neither it nor any child of it is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .checkpoints import facts
from .listeners import listener_of
from .preloads import preloadable, tcmalloc
from .recordings import FOLDER

__all__ = [
    "MODEL",
    "ROOT",
    "Server",
    "ServerFailed",
    "Setting",
    "attached",
    "delayed",
    "free_port",
    "launched",
    "parrot_server",
    "stop_on_sigterm",
    "vllm_server",
]

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".bench" / "vllm"
MODEL = "m"
"""What every server calls the checkpoint."""
START_S = 600.0
STOP_S = 20.0


class ServerFailed(Exception):
    """A server did not come up; the message ends with what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What every server of a run has in common."""

    checkpoint: Path
    context_tokens: int
    kv_gib: int = 2
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    recordings: Path | None = None
    """Answers are the recorded ones that lie here."""
    has_gpu: bool = field(default_factory=lambda: shutil.which("nvidia-smi") is not None)

    @property
    def dtype(self) -> str:
        return str(facts(self.checkpoint)["dtype"])

    @property
    def kv_tokens(self) -> int:
        tokens: int = (self.kv_gib << 30) // facts(self.checkpoint)["kv_bytes_per_token"]
        return tokens // VLLM_BLOCK * VLLM_BLOCK

    def environment(self) -> dict[str, str]:
        """Of every server: the allocator is the same for all, OpenMP each server's own best."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PARROT_", "VLLM_", "OMP_", "GOMP_", "KMP_"))
        }
        kept |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
        kept["PYTHONPATH"] = f"{ROOT}:{kept.get('PYTHONPATH', '')}".rstrip(":")
        if self.recordings is not None:
            kept[FOLDER] = str(self.recordings)
        if self.has_gpu:
            return kept
        return kept | {"LD_PRELOAD": str(tcmalloc() or "")}


VLLM_BLOCK = 32
"""Of vLLM's CPU build the least; its default of 128 shares less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One that answers."""

    base_url: str
    """Ends in /v1."""
    pid: int | None = None
    log: Path | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    """What it said of itself that a reader of the results wants to know."""


# ---- which servers there are -------------------------------------------------------------------------------


@asynccontextmanager
async def vllm_server(setting: Setting, log: Path) -> AsyncIterator[Server]:
    program = VLLM / "bin" / "vllm"
    if not program.exists():
        raise ServerFailed("vLLM is not installed here: scripts/bench-setup installs it in .bench/vllm")
    port = free_port()
    command = [str(program), "serve", str(setting.checkpoint), "--served-model-name", MODEL, "--dtype", setting.dtype]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(setting.context_tokens)]
    command += ["--enable-prompt-tokens-details", "--uvicorn-log-level", "warning"]
    environment = setting.environment() | {"VLLM_NO_USAGE_STATS": "1"}
    if setting.recordings is not None:
        command += ["--logits-processors", "recipes.benchmarks.replaying_vllm:ReplayProcessor"]
    if setting.has_gpu:
        command += ["--kv-cache-memory-bytes", str(setting.kv_gib << 30)]
    else:
        if tcmalloc() is None:
            raise ServerFailed("libtcmalloc_minimal.so.4 is missing (scripts/bench-setup says how to get it)")
        command += ["--block-size", str(VLLM_BLOCK)]
        # its threads that spin fight its API server for the cores: 0 is its best (25M fp32, 200us: 0.8x at 16 streams)
        environment |= {"VLLM_CPU_KVCACHE_SPACE": str(setting.kv_gib), "KMP_BLOCKTIME": "0"}
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": f"0-{setting.threads - 1}"}
    environment["PATH"] = f"{VLLM / 'bin'}:{environment.get('PATH', '')}"
    url = f"http://127.0.0.1:{port}"
    with preloadable(VLLM / "lib" / "libiomp5.so") as openmp:
        if not setting.has_gpu:
            environment["LD_PRELOAD"] += f":{openmp}"
        with _process(command, environment, log) as process:
            await _wait(process, log, lambda: _answers(f"{url}/health"))
            yield Server(base_url=f"{url}/v1", pid=process.pid, log=log, notes=_vllm_notes(_said(log)))


def _vllm_notes(said: str) -> dict[str, str]:
    size = re.search(r"KV cache size: ([\d,]+) tokens", said)
    version = re.search(r"version (\d[\w.+]*)", said)
    return {"kv_tokens": size[1].replace(",", "") if size else "?", "vllm": version[1] if version else "?"}


@asynccontextmanager
async def parrot_server(
    setting: Setting, log: Path, *, options: Sequence[str] = (), upstream: str | None = None
) -> AsyncIterator[Server]:
    ready = log.with_suffix(".ready")
    ready.unlink(missing_ok=True)
    program = "parrot_compat" if setting.recordings is None else "recipes.benchmarks.replaying_server"
    command = [sys.executable, "-m", program, "serve", "--port", "0", "--ready-file", str(ready)]
    command += ["--drain", "1"]
    if upstream is not None:
        command += ["--upstream", upstream, "--model", MODEL]
    else:
        command += ["--model", str(setting.checkpoint), "--served-model-name", MODEL, "--dtype", setting.dtype]
        command += ["--max-model-len", str(setting.context_tokens), "--kv-tokens", str(setting.kv_tokens)]
        command += ["--threads", str(setting.threads)]
    with _process([*command, *options], setting.environment(), log) as process:
        await _wait(process, log, ready.exists)
        base_url = str(json.loads(ready.read_text())["base_url"])
        notes = {} if upstream else {"kv_tokens": str(setting.kv_tokens)}
        yield Server(base_url=base_url, pid=process.pid, log=log, notes=notes)


@asynccontextmanager
async def launched(command: Sequence[str], log: Path, health_url: str) -> AsyncIterator[Server]:
    """Any program of this repository that answers at `health_url` when it is up."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")}
    with _process(command, environment, log) as process:
        await _wait(process, log, lambda: _answers(health_url))
        yield Server(base_url=f"{health_url.removesuffix('/health')}/v1", pid=process.pid, log=log)


@asynccontextmanager
async def attached(base_url: str) -> AsyncIterator[Server]:
    """A server that runs already, and goes on running. On this machine its process is known, and its time its own."""
    if not _answers(f"{base_url}/models"):
        raise ServerFailed(f"nothing answers at {base_url}/models")
    yield Server(base_url=base_url, pid=await asyncio.to_thread(listener_of, base_url))


@asynccontextmanager
async def delayed(server: Server, rtt_ms: float, log: Path) -> AsyncIterator[Server]:
    """The same server, `rtt_ms` away: through a delay proxy in a process of its own. 0 ms is the server itself."""
    if rtt_ms == 0:
        yield server
        return
    address = server.base_url.removeprefix("http://").removesuffix("/v1")
    port = free_port()
    command = [sys.executable, "-m", "recipes.benchmarks.delay_proxy"]
    command += ["--to", address, "--port", str(port), "--rtt-ms", str(rtt_ms)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")}
    with _process(command, environment, log) as process:
        await _wait(process, log, lambda: "ms away" in _said(log))
        yield Server(base_url=f"http://127.0.0.1:{port}/v1", pid=process.pid, log=log)


# ---- processes ---------------------------------------------------------------------------------------------


class _process:
    """A process in a group of its own. Leaving interrupts it, then ends whatever of its group is left."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *raised: object) -> None:
        process = self._process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        with suppress(ProcessLookupError):  # nobody of the group is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _wait(process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not await asyncio.to_thread(is_ready):
        if process.poll() is not None or time.monotonic() - began > START_S:
            what = "ended" if process.poll() is not None else f"was not ready after {START_S:g} s"
            last = "\n".join(_said(log).strip().splitlines()[-30:])
            raise ServerFailed(f"a server {what}; its log, {log}, ends with:\n{last}")
        await asyncio.sleep(0.2)


def _said(log: Path) -> str:
    return log.read_text(errors="replace")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def stop_on_sigterm() -> None:
    """SIGTERM ends the running task as Ctrl-C does, so that its servers are stopped."""
    task = asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError):  # on Windows nobody sends it
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
