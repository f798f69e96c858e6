"""Wiring: from settings to a manager that runs, served or in this process. The only code that names concrete classes.

It decides nothing about serving: it makes engines, gives each its tokenizer, and joins them to a fleet.

The invariant: whatever was started here is closed when the block ends, also when starting failed half-way.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from parrot_compat.core.engine import Engine
from parrot_compat.core.engines.openai_server import OpenAIServerEngine, Upstream
from parrot_compat.core.engines.process import ProcessEngine
from parrot_compat.core.errors import ModelRefused
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Limits, Manager
from parrot_compat.core.output_format import ReasoningStyle
from parrot_compat.core.policy import Policy
from parrot_compat.core.shown import shown_url
from parrot_compat.core.tokenizer import Tokenizer
from parrot_compat.integrations.application.application import Application
from parrot_compat.integrations.application.embedded import EmbeddedHost

from .settings import BUILTIN_MODEL, Settings

if TYPE_CHECKING:  # an embedded manager runs without the `server` extra
    from fastapi import FastAPI

__all__ = ["Served", "embedded", "managing", "running"]

Progress = Callable[[str], None]
Result = TypeVar("Result")

ENGINE_PROGRAM = "parrot_compat.gpu"
"""The module that runs as each engine's process. Benchmarks put one in its place that gives recorded answers."""


@dataclass(frozen=True, slots=True)
class Served:
    """What runs: the application to serve, and the manager behind it."""

    app: FastAPI
    manager: Manager


@asynccontextmanager
async def running(settings: Settings, progress: Progress = lambda line: None) -> AsyncIterator[Served]:
    """Start everything; `progress` is told each step. Errors: `ModelRefused`, `EngineError`."""
    from parrot_compat.server.app import create_app
    from parrot_compat.server.auth import Keys

    async with managing(settings, progress) as manager:
        app = create_app(
            manager, keys=Keys(settings.api_keys), tool_style=settings.tool_style, aliases=settings.aliases,
            origins=settings.allowed_origins,
        )  # fmt: skip
        yield Served(app, manager)


@asynccontextmanager
async def managing(settings: Settings, progress: Progress = lambda line: None) -> AsyncIterator[Manager]:
    """Start a manager and its engines. Errors: as `running`."""
    async with AsyncExitStack() as stack:
        fleet = Fleet()
        stack.push_async_callback(fleet.close)
        if settings.upstream is not None:
            await _join_upstream(fleet, settings, progress)
        else:
            await _join_engines(fleet, settings, progress)
        manager = Manager(fleet, limits=_limits(settings), policy=Policy.read(settings.policy))
        yield await stack.enter_async_context(manager)


def _limits(settings: Settings) -> Limits:
    asked = {
        "open_calls": settings.max_open_calls,
        "open_calls_per_tenant": settings.max_open_calls_per_tenant,
        "kept_bytes_per_tenant": settings.max_kept_bytes_per_tenant,
    }
    limits = Limits(**{name: most for name, most in asked.items() if most is not None})
    return limits.shared() if len(set(settings.api_keys)) > 1 else limits  # each key is a tenant


def embedded(model: str | None = None, **options: Any) -> Application:
    """The application that this process runs itself, with the engines of `parrot serve` and no server. `options` are
    those of `Settings`. Nothing starts before the first use, or the block:

    >>> with parrot_compat.embedded("builtin:tiny") as application:
    ...     session = application.open_session()
    """
    settings = Settings(model=model, **options)
    served = model or (BUILTIN_MODEL if settings.upstream is None else shown_url(settings.upstream))
    return Application(EmbeddedHost(lambda: managing(settings)), name=f"embedded {served}")


async def _join_engines(fleet: Fleet, settings: Settings, progress: Progress) -> None:
    tokenizers: list[Tokenizer] = []
    configs: list[dict[str, Any]] = []
    for model in settings.models:
        progress(f"finding {model}")
        path, tokenizer = await _in_a_thread(_checkpoint, model, settings.reasoning_style)
        for _ in range(settings.engines):
            tokenizers.append(tokenizer)
            configs.append(_engine_config(settings, model, path, len(configs)))
    many = f"{settings.engines} engines" if settings.engines > 1 else "the engine"
    progress(f"loading {', '.join(settings.models)} into {many}" + (" of each" if settings.more_models else ""))
    engines = await _all_started([asyncio.ensure_future(_start(config, settings)) for config in configs])
    for config, tokenizer, engine in zip(configs, tokenizers, engines, strict=True):

        async def restart(config: dict[str, Any] = config) -> Engine:
            return await _start(config, settings)

        fleet.add(engine, tokenizer, restart=restart)


async def _all_started(starting: Sequence[asyncio.Task[Engine]]) -> list[Engine]:
    """Where one does not start, or nobody waits any more, those that have are closed."""
    try:
        await asyncio.wait(starting)
        return [start.result() for start in starting]
    except BaseException:
        for start in starting:
            start.cancel()
        await asyncio.wait(starting)
        ended = [start for start in starting if not start.cancelled() and start.exception() is None]
        await asyncio.gather(*(start.result().close() for start in ended))
        raise


async def _in_a_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    """As `asyncio.to_thread`, but neither the event loop nor the process waits for it at their end: a download, which
    may take an hour, is given up."""
    done: concurrent.futures.Future[Result] = concurrent.futures.Future()

    def run() -> None:
        done.set_running_or_notify_cancel()
        try:
            done.set_result(work(*arguments))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return await asyncio.wrap_future(done)


def _checkpoint(model: str, reasoning: ReasoningStyle | None) -> tuple[str, Tokenizer]:
    """Folder and tokenizer of a model. Errors: `ModelRefused`."""
    try:
        # here, not at the top: a server in front of --upstream runs without the `gpu` extra
        from parrot_compat.gpu.models.weights import locate
        from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
    except ImportError as error:
        raise ModelRefused(
            f"our own engine needs the 'gpu' extra ({error.name} is not installed): "
            "pip install '.[server,gpu]' in a checkout (README says how to get torch's small CPU build). "
            "With --upstream URL it is not needed."
        ) from error
    path = locate(model)
    return str(path), HuggingFaceTokenizer(path, reasoning=reasoning)


async def _start(config: dict[str, Any], settings: Settings) -> Engine:
    engine = ProcessEngine([sys.executable, "-m", ENGINE_PROGRAM], config, silence_s=settings.engine_silence)
    await engine.start()
    return engine


def _engine_config(settings: Settings, model: str, path: str, number: int) -> dict[str, Any]:
    """`gpu.config.EngineConfig` as a mapping: the engine's process makes it, so that this one loads no torch."""
    engines = settings.engines * len(settings.models)
    return {
        "model": path,
        "name": f"engine-{number}",
        "served_model_name": settings.served_model_name[0] if settings.served_model_name else model,
        "device": settings.device,
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "page_size": settings.page_size,
        "kv_tokens": settings.kv_tokens,
        "max_rows": settings.max_num_seqs,
        "step_tokens": settings.max_num_batched_tokens,
        "threads": settings.threads,
        "engines_here": engines,
        "enable_prefix_caching": settings.enable_prefix_caching,
        "share_prefixes": Policy.read(settings.policy).prefixes,
        "enforce_eager": settings.enforce_eager,
        "async_scheduling": settings.async_scheduling,
        "deterministic": settings.deterministic,
        "log_level": settings.log_level,
        # engines of one machine share one device
        "gpu_memory_utilization": settings.gpu_memory_utilization / engines,
    }


async def _join_upstream(fleet: Fleet, settings: Settings, progress: Progress) -> None:
    assert settings.upstream is not None
    upstream = Upstream(base_url=settings.upstream, api_key=settings.upstream_api_key)
    models: Sequence[str | None] = settings.models or (None,)  # not asked: the first one it lists
    progress(f"asking {shown_url(settings.upstream)} what it serves")
    for number, model in enumerate(models):

        async def connect(model: str | None = model, number: int = number) -> Engine:
            return await OpenAIServerEngine.connect(upstream, model=model, name=f"engine-{number}")

        fleet.add(await connect(), restart=connect)
