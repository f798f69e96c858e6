from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("llama_index.core")

if TYPE_CHECKING:
    from tests.integrations.langchain.plan_server import PlanServer


@pytest.fixture(scope="package")
def plan_server() -> Iterator[PlanServer]:
    pytest.importorskip("fastapi")
    pytest.importorskip("langchain_core")  # the server is shared with its tests
    from parrot_compat.integrations.llamaindex.planner import planner
    from tests.integrations.langchain.plan_server import PlanServer

    with PlanServer(book=planner.book).running() as server:
        yield server


@pytest.fixture
def server(plan_server: PlanServer) -> PlanServer:
    plan_server.forget()
    return plan_server


@pytest.fixture(autouse=True)
def own_tokenizer() -> Iterator[None]:
    """LlamaIndex's tokenizer is the process's; each test begins without one."""
    import llama_index.core

    llama_index.core.global_tokenizer = None
    yield
    llama_index.core.global_tokenizer = None
