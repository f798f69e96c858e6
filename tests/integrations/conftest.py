from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from .other_server import OtherServer

if TYPE_CHECKING:
    from .served import Served


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
