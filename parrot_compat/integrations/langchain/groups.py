"""Prompts that come together go to the server together: it can only serve as a group what it sees at once.

It knows threads and LangChain's configs, and nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ContextThreadPoolExecutor, get_config_list

__all__ = ["MAX_THREADS", "narrower", "run_together", "whole_batch", "width_of"]

MAX_THREADS = 64
"""Threads that wait for one group's answers; a waiting thread costs a stack and nothing else."""

Result = TypeVar("Result")


def run_together(count: int, run: Callable[[int], Result]) -> list[Result]:
    """`run(0)` … `run(count - 1)` at once, each in a copy of this context. One that fails stops what has not begun;
    what has begun is waited for, so that its callbacks have ended; then the first failure is raised."""
    with ContextThreadPoolExecutor(max_workers=min(count, MAX_THREADS)) as pool:
        futures = [pool.submit(run, index) for index in range(count)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()  # no effect on what has begun or is done
    for future in futures:
        if not future.cancelled() and (error := future.exception()) is not None:
            raise error
    return [future.result() for future in futures]


def whole_batch(
    config: RunnableConfig | Sequence[RunnableConfig] | None, count: int
) -> RunnableConfig | list[RunnableConfig] | None:
    """The config of a batch, wide enough for all of it unless the app has set `max_concurrency`. LangChain's own
    width follows the number of cores, which says nothing about work that a server does."""
    if count == 0:
        return get_config_list(config, 0)
    configs = get_config_list(config, count)
    if configs[0].get("max_concurrency") is None:
        configs = [RunnableConfig(**{**one, "max_concurrency": min(count, MAX_THREADS)}) for one in configs]
    return configs


def width_of(config: RunnableConfig | Sequence[RunnableConfig] | Mapping[str, Any] | None) -> int | None:
    """`max_concurrency`, where the app has set it. Of a batch's configs the first decides, as it does in LangChain."""
    first = config[0] if isinstance(config, Sequence) and config else config
    width = first.get("max_concurrency") if isinstance(first, Mapping) else None
    return width if isinstance(width, int) and width > 0 else None


def narrower(one: int | None, other: int | None) -> int | None:
    widths = [width for width in (one, other) if width is not None]
    return min(widths, default=None)
