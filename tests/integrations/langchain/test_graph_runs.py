"""What the server is told of a graph's calls: session, stage, node, and where their texts come from."""

from __future__ import annotations

import operator
import threading
import uuid
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain.agents")

from parrot_compat.integrations.langchain import ChatParrot
from parrot_compat.integrations.langchain.graph_runs import GraphCalls, GraphRun
from parrot_compat.integrations.langchain.planner import planner
from parrot_compat.integrations.plans.closing import closes_sent
from parrot_compat.integrations.plans.sessions import RunSession
from parrot_compat.integrations.servers import remember_ours

from ..other_server import OtherServer
from .apps import ONE, P, S
from .framework_apps import GRAPHS, HELLO
from .plan_server import GRAPHS as PLANS
from .plan_server import PlanServer


def told(server: PlanServer) -> list[dict[str, Any]]:
    """What each request of the app told, without those that took a planned call."""
    return [body["parrot"] for body in server.asked() if "parrot" in body and "claim" not in body["parrot"]]


def model(server: PlanServer) -> ChatParrot:
    llm = ChatParrot(base_url=server.url, temperature=0)
    remember_ours(llm._endpoint)
    return llm


async def test_all_calls_of_one_run_are_one_session_and_those_of_another_run_another(server: PlanServer) -> None:
    graph = GRAPHS["an agent with a tool"].make(model(server))
    graph.invoke(HELLO)
    await graph.ainvoke(HELLO)
    sessions = [call["session"] for call in told(server)]
    assert len(sessions) == 4 and sessions[0] == sessions[1] != sessions[2] == sessions[3]
    assert {call["function"] for call in told(server)} == {"node:model"}
    assert "stage" not in told(server)[0]


def test_the_calls_of_a_fan_out_are_one_stage(server: PlanServer) -> None:
    GRAPHS["a fan-out"].make(model(server)).invoke(ONE)
    stages = [call.get("stage") for call in told(server)]
    assert len(stages) == 4 and stages[0] == stages[1] == stages[2] and stages[0]["kind"] == "map"
    assert stages[3] is None


def test_a_text_of_an_earlier_answer_that_stands_in_a_prompt_is_an_edge(server: PlanServer) -> None:
    from langgraph.graph import START, StateGraph

    from .framework_apps import State

    llm = model(server)

    def ask(text: str) -> str:
        return llm.invoke(f"about {text}: go on").text

    graph = StateGraph(State).add_node("one", lambda state: {"text": ask(state["x"])})
    graph.add_node("two", lambda state: {"text": ask(state["text"])})
    graph.add_edge(START, "one").add_edge("one", "two").compile().invoke(ONE)
    first, second = told(server)
    assert "inputs" not in first
    (span,) = second["inputs"]
    message = server.asked()[1]["messages"][span["message"]]["content"]
    assert message == f"about {message[span['start'] : span['end']]}: go on"
    assert span["from"] == first["call"]


def test_a_template_is_a_better_name_than_its_node(server: PlanServer) -> None:
    GRAPHS["a chain in a node"].make(model(server)).invoke(ONE)
    assert not any(call["function"].startswith("node:") for call in told(server))
    assert all("session" in call for call in told(server))


def test_a_session_ends_with_its_run(server: PlanServer) -> None:
    GRAPHS["a loop"].make(model(server)).invoke(ONE)
    assert closes_sent(60)
    session = told(server)[0]["session"]
    assert session not in server.sessions()


def test_ends_of_models_are_heard_in_graphs_alone_and_none_is_kept(server: PlanServer) -> None:
    assert planner.ignore_llm
    GRAPHS["an agent with a tool"].make(model(server)).invoke(HELLO)
    for chunk in GRAPHS["a chain in a node"].make(model(server)).stream(ONE):
        assert chunk
        break  # a graph that is left in the middle
    assert planner.ignore_llm


def test_calls_outside_of_graphs_have_no_session(server: PlanServer) -> None:
    (P("A {x}") | model(server) | S).invoke(ONE)
    assert all("session" not in call for call in told(server))


def test_a_server_that_is_not_ours_is_told_nothing(other: OtherServer) -> None:
    GRAPHS["a loop"].make(ChatParrot(base_url=other.url)).invoke(ONE)
    assert len(other.requests) == 3
    assert not any("parrot" in request.body for request in other.requests)


def test_a_plan_in_a_node_is_in_the_session_of_its_graph(server: PlanServer) -> None:
    GRAPHS["a chain in a node"].make(model(server)).invoke(ONE)
    (plan,) = server.asked(PLANS)
    assert [call["session"] for call in told(server)] == [plan["session"]]
    assert closes_sent(60)
    assert plan["session"] not in server.sessions()
    assert server.all_closed() and server.used == 2, "the session was ended before its plan was"


def test_what_is_kept_of_a_run_is_bounded() -> None:
    run = GraphRun(RunSession())
    texts = [f"{number} is the number of this answer" for number in range(500)]
    for text in texts:
        run.ended(uuid.uuid4(), text)
    run.ended(uuid.uuid4(), "short")
    messages = [{"role": "user", "content": " ".join(texts)}]
    spans = run.hints(uuid.uuid4(), {"langgraph_node": "n"}, messages)["inputs"]
    assert len(spans) == 64 and all(span["end"] - span["start"] > 16 for span in spans)


def test_threads_share_a_run() -> None:
    calls, run = GraphCalls(), GraphRun(RunSession())
    ids = [uuid.uuid4() for _ in range(50)]
    metadata = {"langgraph_node": "n"}

    def one(call: uuid.UUID) -> None:
        calls.begin(call, metadata, lambda: run)
        calls.end(call)

    threads = [threading.Thread(target=one, args=(call,)) for call in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not len(calls)
    assert not calls.hints(None, [])


class Interview(TypedDict, total=False):
    who: str
    asked: str
    drafts: Annotated[list[str], operator.add]


def test_copies_of_a_graph_that_run_beside_one_another_are_one_stage_at_each_of_their_nodes(server: PlanServer) -> None:
    from langgraph.graph import START, StateGraph
    from langgraph.types import Send

    from .framework_apps import State

    llm = model(server)
    inner = StateGraph(Interview).add_node("ask", lambda state: {"asked": llm.invoke(state["who"]).text})
    inner.add_node("answer", lambda state: {"drafts": [llm.invoke(state["asked"]).text]})
    interview = inner.add_edge(START, "ask").add_edge("ask", "answer").compile()
    graph = StateGraph(State).add_node("interview", interview)
    graph.add_conditional_edges(START, lambda state: [Send("interview", {"who": f"who {n}"}) for n in range(2)])
    graph.compile().invoke(ONE)
    groups = [call["stage"]["group"] for call in told(server)]
    assert len(groups) == 4 and len(set(groups)) == 2 and {groups.count(group) for group in groups} == {2}
    assert len({call["session"] for call in told(server)}) == 1
