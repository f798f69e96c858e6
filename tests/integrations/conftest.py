from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from .other_server import OtherServer

if TYPE_CHECKING:
    from .served import Served


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """What an app gives up after seconds and goes on without, tests wait for: their machine may be busy."""
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("plans.closing.CLOSE_TIMEOUT_S", "remote.CARD_TIMEOUT_S", "servers.PROBE_TIMEOUT_S"):
            patch.setattr(f"parrot_compat.integrations.{limit}", 60.0)
        yield


@pytest.fixture
def other() -> Iterator[OtherServer]:
    with OtherServer().running() as server:
        yield server


@pytest.fixture(scope="session")
def ours() -> Iterator[Served]:
    pytest.importorskip("fastapi")
    from .served import served

    with served() as server:
        yield server


@pytest.fixture(scope="session")
def real() -> Iterator[Served]:
    """Our own engine, with the small model that is shipped."""
    pytest.importorskip("fastapi")
    pytest.importorskip("torch")
    pytest.importorskip("llguidance")
    from .served import builtin_fleet, served

    with served(builtin_fleet) as server:
        yield server
