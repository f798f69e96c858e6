"""The client side of a plan against a line that does what a test says: nothing, something else, or half of it."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from parrot_compat.integrations.plans import calls
from parrot_compat.integrations.plans.asked import Asked
from parrot_compat.integrations.plans.client import PlanClient
from parrot_compat.integrations.plans.ledger import CallAhead, Ending
from parrot_compat.integrations.remote import Endpoint
from parrot_compat.integrations.servers import is_ours, plans_refused
from tests.integrations.other_server import OtherServer

BODY = {"messages": [{"role": "user", "content": "hello"}]}
CALLS = [CallAhead(id="a", request=BODY), CallAhead(id="b", request=BODY)]
PATIENCE_S = 60.0


def test_nothing_blocks_on_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{silent.getsockname()[1]}/v1", api_key="none")
        began = time.monotonic()
        plan = PlanClient(endpoint).submit(CALLS)
        assert plan is not None
        match = plan.find(BODY)
        assert match is not None and match.claim() is None
        plan.close()
        assert time.monotonic() - began < PATIENCE_S, "the server's silence was waited for"
        assert match.outcome.result(PATIENCE_S).ending is Ending.FAILED


def test_a_server_that_cannot_be_reached_fails_the_waiting_calls_at_once() -> None:
    with socket.socket() as nobody:  # held, so that no other program comes to listen there
        nobody.bind(("127.0.0.1", 0))
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{nobody.getsockname()[1]}/v1", api_key="none")
        plan = PlanClient(endpoint).submit(CALLS)
        assert plan is not None
        match = plan.find(BODY)
        assert match is not None
        assert match.outcome.result(PATIENCE_S).ending is Ending.FAILED
        assert not plans_refused(endpoint), "it may be back later"


def test_a_server_without_plans_is_remembered(other: OtherServer) -> None:
    endpoint = Endpoint(base_url=other.url, api_key="none")
    plan = PlanClient(endpoint).submit(CALLS)
    assert plan is not None
    match = plan.find(BODY)
    assert match is not None
    answer = calls.complete(endpoint, {**BODY, "model": "m"}, Asked(match))
    assert answer.choices[0].message.content == "you said hello"
    assert plans_refused(endpoint) and not is_ours(endpoint)
    assert PlanClient(endpoint).submit(CALLS) is None
    assert "parrot" not in other.last.body


def test_a_plan_does_not_follow_its_process_into_a_fork(monkeypatch: pytest.MonkeyPatch, other: OtherServer) -> None:
    plan = PlanClient(Endpoint(base_url=other.url + "?fork", api_key="none")).submit(CALLS)
    assert plan is not None
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert plan.find(BODY) is None


@pytest.mark.parametrize(
    "request_, body",
    [
        ({**BODY, "stream": True, "extra_body": {"stream_options": {"include_usage": True}}}, BODY),
        ({**BODY, "model": "m", "extra_body": {"top_k": 1}}, {**BODY, "model": "m", "top_k": 1}),
        ({**BODY, "timeout": 1}, None),
        ({**BODY, "extra_headers": {"a": "b"}}, None),
        ({**BODY, "extra_body": {"parrot": {"v": 1}}}, None),
    ],
)
def test_the_body_of_a_request_is_what_decides_its_answer(
    request_: dict[str, Any], body: dict[str, Any] | None
) -> None:
    assert calls.body_of(request_) == body


def test_plans_leave_no_threads_behind(other: OtherServer) -> None:
    endpoint = Endpoint(base_url=other.url, api_key="none")
    plan = PlanClient(endpoint).submit(CALLS)
    assert plan is not None
    plan.close()
    deadline = time.monotonic() + PATIENCE_S
    while any(thread.name == "parrot-plan" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a plan's thread is still there"
        threading.Event().wait(0.005)
