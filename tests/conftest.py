"""What holds for all tests: a property is tried on the same examples in every run, and how long one takes, or takes to
be drawn, says how busy the machine is. To try others: `pytest --hypothesis-profile default`. The files that take
longest come first, and servers stop at once."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
LONGEST = (
    "gpu/kernels/triton/test_compiled.py",
    "gpu/kernels/triton/test_interpreted.py",
    "identity/test_more_families.py",
    "gpu/test_service.py",
    "test_architecture.py",
    "identity/test_identity.py",
    "recipes/benchmarks/test_suite.py",
    "recipes/benchmarks/test_gpu_suite.py",
    "recipes/benchmarks/test_lanes.py",
    "test_cli.py",
    "test_compose.py",
)
"""Begun last, as their few tests or their place would have it, one of them would run on alone at the end."""

if find_spec("hypothesis") is not None:  # the judges of tests/conformance run without it
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "same everywhere",
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("same everywhere")

if find_spec("uvicorn") is not None:
    import uvicorn.server

    class _Hurried(ModuleType):
        """asyncio as uvicorn's server sees it here. Ten times a second it looks whether it is to stop, and when it
        stops it sleeps as long again: hundreds of servers, each for one test, would wait for nothing. The times that
        it leaves its answers are no sleeps, and stay."""

        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        @staticmethod
        async def sleep(delay: float) -> None:
            await asyncio.sleep(min(delay, 0.01))

    uvicorn.server.asyncio = _Hurried("asyncio")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`scripts/test` lets xdist hand out files in this order; all others stay in theirs."""
    places = {HERE / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
