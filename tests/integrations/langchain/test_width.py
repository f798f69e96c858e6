"""`max_concurrency`: a plan runs no more calls at once than the app would, and is no less a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableLambda

from parrot_compat.integrations.langchain import ChatParrot, compile, planning, stats

from .apps import DOCS, ONE, P, S
from .plan_server import GRAPHS, PlanServer

MANY = [{"x": str(number)} for number in range(6)]
TWO: Any = {"max_concurrency": 2}
WIDE = DOCS["docs"]


def chain(llm: ChatParrot) -> Runnable[Any, Any]:
    return P("A {x}") | llm | S | P("B {y}") | llm | S


def mapped(llm: ChatParrot) -> Runnable[Any, Any]:
    return (P("sum {doc}") | llm | S).map() | "\n".join | P("all {y}") | llm | S


Run = Callable[[Runnable[Any, Any]], Any]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("make", "run"),
    [
        (chain, lambda app: app.batch(MANY, TWO)),
        (chain, lambda app: app.batch(MANY, [TWO] * 6)),
        (mapped, lambda app: app.invoke(WIDE, TWO)),
        (mapped, lambda app: "".join(app.stream(WIDE, TWO))),
        (mapped, lambda app: app.with_config(TWO).invoke(WIDE)),
    ],
    ids=["batch", "batch with a config each", "map", "streamed", "bound"],
)
def test_a_plan_is_as_wide_as_the_app(
    server: PlanServer, make: Callable[[ChatParrot], Runnable[Any, Any]], run: Run, compiled: bool
) -> None:
    app = make(ChatParrot(base_url=server.url))
    with planning(False):
        expected = run(app)
    server.forget()
    assert run(compile(app) if compiled else app) == expected
    assert [plan["max_concurrency"] for plan in server.asked(GRAPHS)] == [2]
    assert server.most_at_once <= 2
    assert stats().direct == 0 and not server.wasted


async def test_async_batches_keep_to_it_too(server: PlanServer) -> None:
    app = chain(ChatParrot(base_url=server.url))
    with planning(False):
        expected = await app.abatch(MANY, TWO)
    server.forget()
    assert await app.abatch(MANY, TWO) == expected
    assert server.most_at_once <= 2 and stats().direct == 0


def test_what_runs_inside_is_as_narrow_as_what_it_runs_in(server: PlanServer) -> None:
    llm = ChatParrot(base_url=server.url)
    inside = P("first {x}") | llm | S | RunnableLambda(lambda text: [{"doc": part} for part in text]) | mapped(llm)
    inside.invoke(ONE, TWO)
    assert [plan["max_concurrency"] for plan in server.asked(GRAPHS)] == [2]
    assert server.most_at_once <= 2


def read(given: Any) -> Any:
    return {"x": given["x"] * 2}  # opaque: the planner runs no code of the app's


@pytest.mark.parametrize(
    "around",
    [
        lambda app: RunnableLambda(read) | app,
        lambda app: (RunnableLambda(read) | app).with_retry(),
        lambda app: app.with_retry(),
        lambda app: app.with_fallbacks([app]),
    ],
    ids=["opaque", "opaque, tried again", "tried again", "with fallbacks"],
)
async def test_a_batch_whose_roots_cannot_be_planned_together_is_no_wider(
    server: PlanServer, around: Callable[[Runnable[Any, Any]], Runnable[Any, Any]]
) -> None:
    app = around(chain(ChatParrot(base_url=server.url)))
    with planning(False):
        expected = app.batch(MANY, TWO)
    server.forget()
    assert app.batch(MANY, TWO) == expected
    assert server.most_at_once <= 2 and not server.wasted
    server.forget()
    assert await app.abatch(MANY, TWO) == expected
    assert server.most_at_once <= 2 and not server.wasted


def test_a_narrow_run_in_a_batch_that_is_not_is_planned(server: PlanServer) -> None:
    llm = ChatParrot(base_url=server.url)
    inside = chain(llm)
    app = RunnableLambda(lambda given: inside.invoke(given, TWO)) | P("C {z}") | llm | S
    app.batch(MANY[:2])
    assert [plan.get("max_concurrency") for plan in server.asked(GRAPHS)] == [2, 2]
    assert stats().planned == 4 and not server.wasted


def test_a_part_of_a_chain_can_be_narrow(server: PlanServer) -> None:
    llm = ChatParrot(base_url=server.url)
    narrow = (P("sum {doc}") | llm | S).map().with_config(TWO)
    (narrow | "\n".join | P("all {y}") | llm | S).invoke(WIDE)
    assert [plan["max_concurrency"] for plan in server.asked(GRAPHS)] == [2]


def test_without_it_everything_goes_at_once(server: PlanServer) -> None:
    mapped(ChatParrot(base_url=server.url)).invoke(WIDE)
    assert "max_concurrency" not in server.asked(GRAPHS)[0]
    assert server.most_at_once == len(WIDE)
