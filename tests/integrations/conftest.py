from __future__ import annotations

from collections.abc import Iterator

import pytest

from .other_server import OtherServer


@pytest.fixture
def other() -> Iterator[OtherServer]:
    with OtherServer().running() as server:
        yield server
