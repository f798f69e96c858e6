from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .plan_server import PlanServer


@pytest.fixture(scope="package")
def plan_server() -> Iterator[PlanServer]:
    pytest.importorskip("fastapi")
    from .plan_server import PlanServer

    with PlanServer().running() as server:
        yield server


@pytest.fixture
def server(plan_server: PlanServer) -> PlanServer:
    plan_server.forget()
    return plan_server
