"""What a plan may never do: change an answer, an error or the order of the app, whatever happens to it."""

from __future__ import annotations

import json
import logging
from typing import Any

import openai
import pytest
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel, RunnablePassthrough

from parrot_compat.integrations import servers
from parrot_compat.integrations.langchain import ChatParrot, compile, planning, stats
from parrot_compat.integrations.langchain import walk as walking
from parrot_compat.integrations.langchain.planner import Planner, planner
from parrot_compat.integrations.langchain.soft import softly

from ..strangers import pass_time
from .apps import APPS, ONE, P, S
from .plan_server import GRAPHS, PlanServer


def chain(server: PlanServer, **settings: Any) -> Runnable[Any, Any]:
    return APPS["chain"].make(ChatParrot(base_url=server.url, max_retries=0, **settings))


def unplanned(app: Runnable[Any, Any], value: Any = ONE) -> Any:
    with planning(False):
        return app.invoke(value)


class Incomparable:
    """As an array, or a table: that it equals another thing is no truth."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("how", ["invoke", "batch"])
def test_what_an_app_begins_with_is_not_compared(server: PlanServer, how: str) -> None:
    llm = ChatParrot(base_url=server.url)
    app = RunnableLambda(lambda table: {"x": "q"}) | P("A {x}") | llm | S | P("B {y}") | llm | S
    table: Any = Incomparable()
    if how == "invoke":
        app.invoke(table)
    else:
        app.batch([table, table])
    assert stats().direct == 0 and stats().planned == (2 if how == "invoke" else 4)


# ---- servers and lines ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["404", "405", "page"])
def test_a_server_without_plans_is_asked_once_and_never_sent_a_parrot_object(how: str) -> None:
    with PlanServer().running() as server:  # its own: the process remembers the address
        app = chain(server)
        expected = unplanned(app)
        if how == "page":
            server.line.html = True
        else:
            server.line.refuse = int(how)
        assert app.invoke(ONE) == expected
        server.line.refuse, server.line.html = None, False
        assert app.invoke(ONE) == expected
        assert "".join(app.stream(ONE)) == expected
        assert len(server.asked(GRAPHS)) == 1
        assert not any("parrot" in body for body in server.asked())


@pytest.mark.parametrize("how", ["404", "405", "page"])
def test_a_server_that_had_plans_is_sent_them_again_once_what_stood_in_its_place_is_gone(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "ASK_AGAIN_S", 0.0)
    with PlanServer().running() as server:
        app = chain(server)
        expected = unplanned(app)
        assert app.invoke(ONE) == expected and stats().pushed == 4
        if how == "page":
            server.line.html = True
        else:
            server.line.refuse = int(how)
        assert app.invoke(ONE) == expected and stats().pushed == 4
        server.line.refuse, server.line.html = None, False
        assert app.invoke(ONE) == expected and stats().pushed == 8
        assert server.all_closed()


def test_a_server_that_something_stood_before_at_first_is_sent_plans_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with PlanServer().running() as server:
        app = chain(server)
        expected = unplanned(app)
        server.line.refuse = 404
        assert app.invoke(ONE) == expected
        server.line.refuse = None
        assert app.invoke(ONE) == expected and stats().pushed == 0
        pass_time(monkeypatch, servers.ASK_A_STRANGER_AGAIN_S)
        assert app.invoke(ONE) == expected and stats().pushed == 4
        assert server.all_closed()


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_a_refusal_of_one_plan_is_not_taken_for_a_rule(server: PlanServer, status: int) -> None:
    app = chain(server)
    expected = unplanned(app)
    server.line.refuse = status
    assert app.invoke(ONE) == expected
    assert len(server.asked(GRAPHS)) == 1, "a plan is not worth a second try"
    server.line.refuse = None
    assert app.invoke(ONE) == expected
    assert stats().pushed == 4


async def test_a_broken_line_turns_pushes_into_claims(server: PlanServer) -> None:
    app = chain(server)
    expected = unplanned(app)
    asked = len(server.asked())
    server.line.break_after = 2  # the plan is accepted and one call pushed
    assert app.invoke(ONE) == expected
    assert (stats().pushed, stats().claimed) == (1, 3)
    assert await app.ainvoke(ONE) == expected
    claims = [body["parrot"] for body in server.asked()[asked:]]
    assert len(claims) == 6
    assert all({"v", "claim", "graph", "nonce"} <= set(claim) for claim in claims)
    assert server.all_closed()
    assert server.wasted == 0
    assert len(server.generated()) == 3 * 4, "a claimed call was made twice"


def test_the_answer_to_a_claim_shows_nothing_of_the_claim(server: PlanServer) -> None:
    app = APPS["messages out"].make(ChatParrot(base_url=server.url))
    with planning(False):
        expected = app.invoke(ONE)
    server.line.break_after = 1
    answer = app.invoke(ONE)
    assert stats().claimed == 2
    assert set(answer.response_metadata) == set(expected.response_metadata)
    assert answer.content == expected.content


@pytest.mark.parametrize("field", ["seed", "messages"])
def test_a_push_of_another_request_is_not_an_answer(server: PlanServer, field: str) -> None:
    app = chain(server)
    expected = unplanned(app)

    def other(event: dict[str, Any]) -> dict[str, Any]:
        if event["type"] == "parrot:call":
            changed = 7 if field == "seed" else [{"role": "user", "content": "another"}]
            event["request"] = {**event["request"], field: changed}
        return event

    server.line.change = other
    assert app.invoke(ONE) == expected
    assert (stats().pushed, stats().direct) == (0, 8)


def test_calls_that_wait_do_not_wait_for_a_plan_that_died(server: PlanServer) -> None:
    app = chain(server)
    expected = unplanned(app)
    server.line.break_after = 0  # not even accepted
    assert app.invoke(ONE) == expected
    assert "".join(app.stream(ONE)) == expected


# ---- failures of calls ---------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
async def test_the_app_meets_the_error_of_its_own_call(server: PlanServer, compiled: bool) -> None:
    llm = ChatParrot(base_url=server.url, max_retries=0)
    app: Runnable[Any, Any] = P("A {x}") | llm | S | P("FAIL {y}") | llm | S | P("C {y}") | llm | S
    with pytest.raises(openai.InternalServerError) as expected:
        unplanned(app)
    run = compile(app) if compiled else app
    with pytest.raises(openai.InternalServerError) as met:
        run.invoke(ONE)
    assert (type(met.value), str(met.value)) == (type(expected.value), str(expected.value))
    with pytest.raises(openai.InternalServerError, match="the engine failed"):
        await run.ainvoke(ONE)
    with planning(False), pytest.raises(openai.APIError) as expected_of_streams:
        list(app.stream(ONE))
    with pytest.raises(openai.APIError) as met_by_streams:
        list(run.stream(ONE))
    assert type(met_by_streams.value) is type(expected_of_streams.value)
    assert str(met_by_streams.value) == str(expected_of_streams.value)
    assert not any("C " in prompt for prompt in server.generated())
    assert not len(planner._runs)


def test_a_batch_that_fails_does_not_keep_its_plan_for_roots_that_never_begin(server: PlanServer) -> None:
    llm = ChatParrot(base_url=server.url, max_retries=0)
    app = compile(RunnableParallel(a=P("A {x}") | llm | S | P("B {y}") | llm | S))
    with pytest.raises(openai.APIError):
        app.batch([{"x": "FAIL"}, *[{"x": str(number)} for number in range(20)]], {"max_concurrency": 1})
    assert len(planner.book.records()) == 1, "the plan is over when the batch is"
    assert server.all_closed()


@pytest.mark.parametrize("off", [0, 2])
def test_a_batch_of_which_one_run_is_not_planned_does_not_keep_its_plan(server: PlanServer, off: int) -> None:
    app, values = chain(server), [{"x": str(number)} for number in range(3)]
    expected = [unplanned(app, value) for value in values]
    configs: list[Any] = [{"metadata": {"parrot_planning": number != off}} for number in range(3)]
    assert app.batch(values, configs) == expected
    assert len(planner.book.records()) == 1 and server.all_closed()


def test_fallbacks_and_retries_do_what_they_do_without_a_plan(server: PlanServer) -> None:
    llm = ChatParrot(base_url=server.url, max_retries=0)
    failing = P("A {x}") | llm | S | P("FAIL {y}") | llm | S
    app = failing.with_fallbacks([P("F {x}") | llm | S | P("G {y}") | llm | S])
    expected = unplanned(app)
    alone = server.generated()
    server.forget()
    assert app.invoke(ONE) == expected
    # The planned call that failed is made once more by the app itself, which meets the error.
    assert sorted({*server.generated()}) == sorted({*alone})
    assert (stats().plans, stats().pushed) == (2, 3)

    retried = failing.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    with pytest.raises(openai.InternalServerError, match="the engine failed"):
        retried.invoke(ONE)


# ---- the app's own code --------------------------------------------------------------------------


async def test_code_between_calls_runs_when_it_did_and_as_often(server: PlanServer) -> None:
    llm = ChatParrot(base_url=server.url)
    seen: list[str] = []

    def note(name: str) -> RunnableLambda[Any, Any]:
        def noted(value: Any) -> Any:
            seen.append(f"{name}: {value}")
            return value

        return RunnableLambda(noted)

    def taste() -> str:
        seen.append("partial")
        return "sweet"

    app = (
        P("A {x}") | llm | S | note("after A") | P("B {y}") | llm | S
        | RunnableParallel(c=P("C {z}") | llm | S | note("after C"), same=RunnablePassthrough())
        | P("{taste} {c} {same}").partial(taste=taste) | llm | S | note("end") | P("E {e}") | llm | S
    )  # fmt: skip
    with planning(False):
        expected = app.invoke(ONE)
    order, seen[:] = list(seen), []
    for style in ("invoke", "ainvoke", "stream", "compiled"):
        if style == "invoke":
            assert app.invoke(ONE) == expected
        elif style == "ainvoke":
            assert await app.ainvoke(ONE) == expected
        elif style == "stream":
            assert "".join(app.stream(ONE)) == expected
        else:
            assert compile(app).invoke(ONE) == expected
        assert seen == order
        seen.clear()


def test_values_with_code_of_their_own_are_not_formatted_early(server: PlanServer) -> None:
    class Shy:
        times = 0

        def __format__(self, spec: str) -> str:
            self.times += 1
            return f"shy {self.times}"

    llm = ChatParrot(base_url=server.url)
    app = P("A {x}") | llm | S | P("B {y}") | llm | S | P("C {y}") | llm | S
    value = Shy()
    app.invoke({"x": value})
    assert value.times == 1
    assert "shy 1" in next(prompt for prompt in server.generated() if "A shy" in prompt)


def test_a_partial_with_code_of_its_own_is_not_formatted_early(server: PlanServer) -> None:
    class Clock:
        times = 0

        def __str__(self) -> str:
            self.times += 1
            return f"tick {self.times}"

    clock, llm = Clock(), ChatParrot(base_url=server.url)
    app = P("A {x} {now}").partial(now=clock) | llm | S | P("B {y}") | llm | S
    app.invoke({"x": "1"})
    assert clock.times == 1
    assert stats().wasted == 0


def test_a_subclass_that_changes_what_is_asked_is_asked_itself(server: PlanServer) -> None:
    class Redacting(ChatParrot):
        def _generate(self, messages: Any, *arguments: Any, **more: Any) -> Any:
            hidden = [message.model_copy(update={"content": "A nothing"}) for message in messages]
            return super()._generate(hidden, *arguments, **more)

    class Named(ChatParrot):
        purpose: str = "a field more changes nothing"

    app = P("A {x}") | Redacting(base_url=server.url) | S | P("B {y}") | Redacting(base_url=server.url) | S
    app.invoke({"x": "the secret"})
    assert stats().plans == 0 and not any("the secret" in json.dumps(body) for body in server.asked())
    named = P("A {x}") | Named(base_url=server.url) | S | P("B {y}") | Named(base_url=server.url) | S
    named.invoke({"x": "1"})
    assert stats().pushed == 2


def test_a_prompt_changed_by_a_callback_is_the_prompt_that_is_asked(server: PlanServer) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    class Censor(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            for message in messages[0]:
                message.content = message.content.replace("B ", "censored ")

    app = chain(server)
    with planning(False):
        expected = app.invoke(ONE, {"callbacks": [Censor()]})
    assert app.invoke(ONE, {"callbacks": [Censor()]}) == expected
    assert stats().direct > 4, "calls that differ from the plan are made as they are"


def test_a_failure_of_the_planner_is_told_once_and_costs_only_the_plan(
    server: PlanServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = chain(server)
    expected = unplanned(app)

    def broken(self: object, *args: object) -> None:
        raise RuntimeError("the planner's own fault")

    for name, method in vars(Planner).items():  # of this process another test may have been told already
        if hasattr(method, "__wrapped__"):
            monkeypatch.setattr(Planner, name, softly(method.__wrapped__))
    monkeypatch.setattr(walking.Walk, "walk", broken)
    with caplog.at_level(logging.DEBUG):
        assert app.invoke(ONE) == expected
        assert app.invoke(ONE) == expected
    ours = [record for record in caplog.records if record.name.startswith("parrot_compat")]
    told = [record.getMessage() for record in ours if "planner failed" in record.getMessage()]
    assert told, "or nothing of the planner broke"
    assert len(told) == len({*told}), "told more than once per place"
    assert all(record.levelno == logging.DEBUG for record in ours)
    assert stats().plans == 0


def test_what_fails_softly_is_told_once_and_raised_never(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    @softly
    def fails(number: int) -> None:
        heard.append(number)
        raise RuntimeError("its own fault")

    with caplog.at_level(logging.DEBUG):
        for number in range(2):
            fails(number)
    (record,) = (record for record in caplog.records if record.name == softly.__module__)
    assert record.levelno == logging.DEBUG and "fails" in record.getMessage() and record.exc_info is not None
    assert heard == [0, 1], "it is tried again all the same"
