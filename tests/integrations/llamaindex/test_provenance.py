"""What a server is told of calls that no plan answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer

from parrot_compat.integrations.llamaindex import ParrotLLM, planning, session
from parrot_compat.integrations.plans.closing import closes_sent
from parrot_compat.integrations.servers import is_ours
from tests.integrations.langchain.plan_server import GRAPHS, PlanServer

from .apps import APPS, query_engine

TREE, REFINE = APPS[0], APPS[6]
SHORT = next(app for app in APPS if app.name == "accumulate equal texts")


@pytest.fixture
def llm(server: PlanServer) -> ParrotLLM:
    llm = ParrotLLM(base_url=server.url, max_tokens=20)
    llm.complete("are you one of ours?")
    assert server.until(lambda: is_ours(llm._endpoint))
    server.forget()
    return llm


def told(server: PlanServer) -> list[dict[str, Any]]:
    return [body.get("parrot", {}) for body in server.asked()]


def test_a_predicted_template_is_told_with_the_places_of_its_values(llm: ParrotLLM, server: PlanServer) -> None:
    template = PromptTemplate("Of {{x}} {what} say {how}, {what}").partial_format(how="br☃ef")
    for what in ("birds", "rivers"):
        assert llm.predict(template, what=what)
    "".join(llm.stream(template, what="seas"))
    asyncio.run(llm.apredict(template, what="hills"))
    assert len({hints["function"] for hints in told(server)}) == 1
    text = server.asked()[0]["messages"][0]["content"]
    places = [(span["name"], text[span["start"] : span["end"]]) for span in told(server)[0]["inputs"]]
    assert places == [("what", "birds"), ("how", "br☃ef"), ("what", "birds")]


def test_the_calls_of_one_run_are_one_session_and_another_run_is_another(llm: ParrotLLM, server: PlanServer) -> None:
    synthesizer = get_response_synthesizer(llm=llm, response_mode=ResponseMode.ACCUMULATE)
    with planning(False):
        for _ in range(2):
            synthesizer.get_response("what?", ["a", "b"])
    labels = [hints["session"] for hints in told(server)]
    assert labels[0] == labels[1] != labels[2] == labels[3]


def test_a_label_of_the_apps_own_is_the_session(llm: ParrotLLM, server: PlanServer) -> None:
    with session("report 17"):
        llm.complete("hi")
        asyncio.run(llm.acomplete("hi"))
    llm.complete("hi")
    assert [hints.get("session") for hints in told(server)] == ["report 17", "report 17", None]
    with pytest.raises(ValueError, match="1 to 256 characters"), session(""):
        pass


def test_an_agents_calls_are_one_session(llm: ParrotLLM, server: PlanServer) -> None:
    async def run(agent: FunctionAgent) -> None:
        await agent.run("hello")

    agent = FunctionAgent(llm=llm, tools=[], streaming=False)
    for _ in range(2):
        asyncio.run(run(agent))
    labels = [hints.get("session") for hints in told(server)]
    assert len(labels) == 2 and None not in labels and labels[0] != labels[1]


def test_the_words_of_a_call_are_the_same_with_and_without_hints(llm: ParrotLLM, server: PlanServer) -> None:
    llm.predict(PromptTemplate("say {what}"), what="hi")
    body = server.asked()[0]
    assert body["messages"] == [{"role": "user", "content": "say hi"}]


def test_a_plan_is_in_the_session_of_what_it_is_a_part_of(llm: ParrotLLM, server: PlanServer) -> None:
    engine = query_engine(SHORT, server.url)
    for _ in range(2):
        engine.query("what?")
    assert closes_sent(60)
    one, two = (plan["session"] for plan in server.asked(GRAPHS))
    assert one != two and not {one, two} & server.sessions()
    assert server.all_closed() and server.used == 2 * SHORT.planned, "a session was ended before its plan was"
    SHORT.synthesizer(server.url).get_response("what?", SHORT.texts)
    assert "session" not in server.asked(GRAPHS)[-1], "a plan that is all of a run is a session by itself"


def test_a_plan_has_the_label_that_the_app_gives_its_calls(llm: ParrotLLM, server: PlanServer) -> None:
    with session("report 17"):
        TREE.synthesizer(server.url).get_response("what?", TREE.texts)
        llm.complete("hi")
    assert {plan["session"] for plan in server.asked(GRAPHS)} == {"report 17"}
    assert told(server)[-1]["session"] == "report 17"
    assert closes_sent(60) and "report 17" in server.sessions(), "the app may use its own label again"


def test_a_session_ends_with_its_run(llm: ParrotLLM, server: PlanServer) -> None:
    synthesizer = get_response_synthesizer(llm=llm, response_mode=ResponseMode.ACCUMULATE)
    with planning(False):
        synthesizer.get_response("what?", ["a", "b"])
    assert closes_sent(60)
    (label,) = {hints["session"] for hints in told(server)}
    assert label not in server.sessions()


def test_a_template_that_is_asked_alone_is_no_session_of_many(llm: ParrotLLM, server: PlanServer) -> None:
    llm.predict(PromptTemplate("say {what}"), what="hi")
    assert "session" not in told(server)[0]


def test_the_last_words_of_a_stream_are_read_after_its_run(llm: ParrotLLM, server: PlanServer) -> None:
    with planning(False):
        stream: Any = REFINE.synthesizer(server.url, streaming=True).get_response("what?", REFINE.texts)
    assert "".join(stream).startswith("ans-")
    assert closes_sent(60)
    *inside, last = (hints.get("session") for hints in told(server))
    assert len(set(inside)) == 1 and last is None, "it is asked when no run is known any more"
    assert inside[0] not in server.sessions()
