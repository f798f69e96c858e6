"""Which calls of a chain a server hears are one session, and that it hears of the end."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableLambda

from parrot_compat.integrations.langchain import ChatParrot, compile, planning, session
from parrot_compat.integrations.plans.closing import closes_sent
from parrot_compat.integrations.servers import remember_ours

from .apps import APPS, DOCS, ONE, P, S
from .plan_server import GRAPHS, PlanServer


@pytest.fixture
def llm(server: PlanServer) -> ChatParrot:
    llm = ChatParrot(base_url=server.url, temperature=0)
    remember_ours(llm._endpoint)
    return llm


def asked_in(server: PlanServer) -> list[str | None]:
    """The sessions of ordinary requests, in order."""
    said = [body.get("parrot", {}) for body in server.asked()]
    return [one.get("session") for one in said if "claim" not in one]


def planned_in(server: PlanServer) -> list[str | None]:
    return [body.get("session") for body in server.asked(GRAPHS)]


def test_a_chain_that_is_seen_to_its_end_is_a_session_without_being_told(llm: ChatParrot, server: PlanServer) -> None:
    APPS["chain"].make(llm).invoke(ONE)
    assert planned_in(server) == [None]


def test_a_plan_and_what_follows_an_opaque_step_are_one_session_that_ends_with_the_run(
    llm: ChatParrot, server: PlanServer
) -> None:
    join = RunnableLambda(lambda texts: " ".join(texts))
    app = (P("sum {doc}") | llm | S).map() | join | P("all of {y}") | llm | S
    for _ in range(2):
        app.invoke(DOCS["docs"])
    one, two = planned_in(server)
    assert one and two and one != two
    assert closes_sent(60)
    assert not {one, two} & server.sessions()
    assert server.all_closed() and not server.wasted, "a session was ended before its plan was"


def test_from_the_second_call_on_a_run_is_told_as_a_session(llm: ChatParrot, server: PlanServer) -> None:
    def loop(text: str) -> str:
        for _ in range(3):
            text = llm.invoke(f"again {text}").text
        return text

    RunnableLambda(loop).invoke("hi")
    first, second, third = asked_in(server)
    assert first is None and second is not None and second == third


@pytest.mark.parametrize("compiled", [False, True])
def test_the_roots_of_a_batch_are_one_session(llm: ChatParrot, server: PlanServer, compiled: bool) -> None:
    app: Runnable[Any, Any] = APPS["resumed"].make(llm)
    (compile(app) if compiled else app).batch([ONE, {"x": "r"}])
    (label,) = set(planned_in(server))
    assert label is not None


@pytest.mark.parametrize("on", [True, False])
def test_a_label_of_the_apps_own_is_told_with_plans_and_calls(llm: ChatParrot, server: PlanServer, on: bool) -> None:
    with planning(on), session("report 17"):
        APPS["resumed"].make(llm).invoke(ONE)
        llm.invoke("hi")
    llm.invoke("hi")
    *inside, outside = asked_in(server)
    assert set(inside) == {"report 17"} and outside is None
    assert planned_in(server) == (["report 17"] if on else [])
    assert closes_sent(60)
    assert "report 17" in server.sessions(), "the app may use its own label again"


def test_a_stream_that_is_read_after_its_run_keeps_its_session(llm: ChatParrot, server: PlanServer) -> None:
    """The server is told of a session's end only behind the last request in it."""
    begun, go_on = threading.Event(), threading.Event()

    def ask(text: str) -> str:
        llm.invoke("first")
        stream = llm.stream("second")
        threading.Thread(target=contextvars.copy_context().run, args=(read, stream)).start()
        assert begun.wait(30)
        return text

    heard: list[str] = []
    done = threading.Event()

    def read(stream: Any) -> None:
        for piece in stream:
            heard.append(piece.text)
            begun.set()
            go_on.wait(30)
        done.set()

    RunnableLambda(ask).invoke("hi")
    name = asked_in(server)[1]
    assert name is not None and closes_sent(60) and name in server.sessions()
    go_on.set()
    assert done.wait(30) and "".join(heard).startswith("ans-")
    assert server.until(lambda: closes_sent(60) and name not in server.sessions())
