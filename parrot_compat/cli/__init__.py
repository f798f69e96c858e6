"""The command line: `parrot serve`, `parrot bench` and `parrot version`.

It knows options and settings, and how to run what `compose` makes, until a signal ends it.

The invariant: whatever keeps the server from starting is one clear message and exit code 1 (2 for a wrong
option), never a traceback; and nothing that was started is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from parrot_compat import __version__
from parrot_compat.core.errors import ParrotError
from parrot_compat.core.tokenizer import ToolStyled
from parrot_compat.core.unread_calls import are_calls_unread
from parrot_compat.gpu.logs import set_level, start_log
from parrot_compat.settings import BadSettings, Settings

from . import bench, options
from .environment import settings_of, strangers
from .ready_file import ReadyFile
from .telling import Teller

if TYPE_CHECKING:
    from parrot_compat.core.manager import Manager
    from parrot_compat.server.listening import Listener

__all__ = ["main", "program", "serve", "version"]

app = typer.Typer(
    name="parrot",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="parrot_compat serves LLM applications, not requests: any OpenAI client works unchanged.",
)
app.add_typer(bench.app)
_tell = Teller()
_log = logging.getLogger(__name__)

FEW_FILES = 4096
"""Each connection is an open file: a server that may open fewer soon refuses clients."""


@app.callback(invoke_without_command=True)
def program(is_version: options.Version = False) -> None:
    if is_version:
        version()
        raise typer.Exit


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"parrot_compat {__version__} (Python {platform.python_version()})")


@app.command(no_args_is_help=False)
def serve(
    model: options.Model = None,
    served_model_name: options.ServedModelName = None,
    tool_call_parser: options.ToolCallParser = None,
    reasoning_parser: options.ReasoningParser = None,
    max_model_len: options.MaxModelLen = None,
    dtype: options.Dtype = None,
    host: options.Host = None,
    port: options.Port = None,
    api_key: options.ApiKey = None,
    api_keys_file: options.ApiKeysFile = None,
    allowed_origins: options.AllowedOrigins = None,
    ready_file: options.ReadyFile = None,
    drain: options.Drain = None,
    max_open_calls: options.MaxOpenCalls = None,
    max_open_calls_per_tenant: options.MaxOpenCallsPerTenant = None,
    max_kept_bytes_per_tenant: options.MaxKeptBytesPerTenant = None,
    log_level: options.LogLevel = None,
    device: options.Device = None,
    engines: options.Engines = None,
    engine_silence: options.EngineSilence = None,
    gpu_memory_utilization: options.GpuMemoryUtilization = None,
    kv_tokens: options.KvTokens = None,
    page_size: options.PageSize = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    threads: options.Threads = None,
    enable_prefix_caching: options.EnablePrefixCaching = None,
    enforce_eager: options.EnforceEager = None,
    async_scheduling: options.AsyncScheduling = None,
    deterministic: options.Deterministic = None,
    upstream: options.Upstream = None,
    policy: options.Policy = None,
) -> None:
    """Serve a model over OpenAI's API, until Ctrl-C.

    Every option can also be set in the environment: --max-model-len is PARROT_MAX_MODEL_LEN. Two are named otherwise:
    --api-key is PARROT_API_KEYS, separated by commas, a second --model is PARROT_MORE_MODELS, likewise. The command
    line wins.

    Try it:  curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json'
    -d '{"messages": [{"role": "user", "content": "Hello"}]}'
    """
    asked = dict(locals())
    models, keys = asked.pop("model"), asked.pop("api_key")
    first, *more = models or [None]
    asked |= {"api_keys": keys, "drain_s": asked.pop("drain")}
    asked = {name: (tuple(value) or None) if isinstance(value, list) else value for name, value in asked.items()}
    _serve(model=first, more_models=tuple(more) if models else None, **asked)


# ---- running ---------------------------------------------------------------------------------------


def _serve(**asked: Any) -> None:
    start_log()
    try:
        settings = settings_of(os.environ, **asked)
        set_level(settings.log_level)
        _warn_of_names(settings)
        if settings.upstream is not None and settings.of_our_engine:
            _log.warning(
                "with --upstream the other server decides: without effect %s", ", ".join(settings.of_our_engine)
            )
        _allow_many_files()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve_until_stopped(settings))
    except BadSettings as error:
        _fail(error, 2)
    except ParrotError as error:
        _fail(error, 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        _tell.done()
        _tell.say("stopped before it was ready")
        sys.stdout.flush()
        os._exit(0)  # at an ordinary end Python would wait for the threads of a download


def _warn_of_names(settings: Settings) -> None:
    """Of variables without effect, which somebody may rely on: misspelt ones, and a client's key, of which one may
    think that the server asks for it. `none` is what clients say where no key is needed."""
    if unknown := strangers(os.environ):
        _log.warning("the environment has names that are no settings, and have no effect: %s", ", ".join(unknown))
    if not settings.api_keys and os.environ.get("PARROT_API_KEY", "none") not in ("", "none"):
        _log.warning("PARROT_API_KEY is read by clients; this server has no keys: those are PARROT_API_KEYS")


def _allow_many_files() -> None:
    """The soft limit is 1,024 on many systems, and what may be had without asking anybody is the hard one."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        _log.warning("this process may open %d files, each connection is one: raise its limit (ulimit -n)", soft)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve_until_stopped(settings: Settings) -> None:
    """Take the port, load, answer, drain, close. A stop while loading ends the loading."""
    # here, not at the top: `parrot version` and `--help` answer at once
    from parrot_compat.compose import running
    from parrot_compat.server.listening import Listener

    ready = None if settings.ready_file is None else ReadyFile(Path(settings.ready_file))
    with Listener(settings.host, settings.port) as listener, contextlib.ExitStack() as stack:
        if ready is not None:
            ready.clear()  # not before the port is ours: the server that has it may have the file, too
            stack.callback(ready.remove)
        _on_signals(listener, settings.drain_s, ready)
        stack.callback(_tell.done)
        async with running(settings, _tell.doing) as served:

            def on_ready() -> None:
                _tell.done()
                names = [card.name for card in served.manager.models()] + list(settings.aliases)
                typer.echo(f"parrot_compat serves {', '.join(names)} at {listener.url}/v1")
                if left_out := served.manager.policy.left_out:
                    _tell.say(f"policy {settings.policy}: without {', '.join(left_out)}")
                if settings.upstream is None and "builtin:random" in settings.models:
                    unreal = "its weights are random: what it says makes no sense (--model serves a real one)"
                    _tell.say(unreal, logging.WARNING)
                for name in _with_unread_calls(settings, served.manager):
                    _tell.say(
                        f"{name}: its chat template tells of tools, and its calls are not read, for it shows none of "
                        "the styles that are known here: --tool-call-parser names one",
                        logging.WARNING,
                    )
                if ready is not None and not listener.is_stopping:
                    ready.write(f"{listener.url}/v1")

            await listener.serve(served.app, drain_s=settings.drain_s, on_ready=on_ready)


def _with_unread_calls(settings: Settings, manager: Manager) -> list[str]:
    """The models whose calls of tools would be taken for text. Who has named a style knows better."""
    tokenizers = {card.name: manager.tokenizer(card.name) for card in manager.models()}
    return [
        name
        for name, tokenizer in tokenizers.items()
        if settings.tool_style is None
        and isinstance(tokenizer, ToolStyled)
        and are_calls_unread(tokenizer, tokenizer.tool_style)
    ]


def _on_signals(listener: Listener, drain_s: float, ready: ReadyFile | None) -> None:
    from parrot_compat.server.listening import whole_seconds

    main = asyncio.current_task()
    assert main is not None

    def stop() -> None:
        if not listener.is_serving:
            main.cancel()
            return
        if not listener.is_stopping:
            if ready is not None:
                ready.remove()
            _tell.say(f"stopping: answers have {whole_seconds(drain_s)} s; Ctrl-C again ends them now")
        listener.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        # not on Windows, where Ctrl-C arrives as KeyboardInterrupt
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stop)


def _fail(error: ParrotError, code: int) -> None:
    _tell.refuse(error.message)
    raise typer.Exit(code)


def main() -> None:
    app()
