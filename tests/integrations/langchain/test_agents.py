"""Agents as LangChain makes them: their tools, the form of their last answer, their histories, their sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain.agents")

from langchain.agents import create_agent
from langchain_core.tools import tool

from parrot_compat.integrations.langchain import ChatParrot
from parrot_compat.integrations.langchain.planner import planner
from parrot_compat.integrations.servers import remember_ours

from ..other_server import OtherServer, Reply, Request, completion
from .framework_apps import HELLO, Person, look_up
from .plan_server import PlanServer


def ours(server: PlanServer) -> ChatParrot:
    llm = ChatParrot(base_url=server.url, temperature=0)
    remember_ours(llm._endpoint)
    return llm


def sessions(server: PlanServer) -> list[str | None]:
    """Of every request of the apps, the first of a run's included."""
    return [body.get("parrot", {}).get("session") for body in server.asked()]


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what no event tells."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"it never came to this: {what}")


def calls(name: str, arguments: str) -> dict[str, Any]:
    made = [{"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}]
    return completion(None, finish="tool_calls", tool_calls=made)


def test_an_agent_whose_answer_has_a_form_calls_its_tools_first(server: PlanServer) -> None:
    agent = create_agent(ours(server), [look_up], response_format=Person)
    state = agent.invoke({"messages": [("human", "JSON of a parrot")]})
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][2].text.startswith("found ")
    assert isinstance(state["structured_response"], Person)
    asked = server.asked()
    assert len(asked) == 2 and {body["response_format"]["type"] for body in asked} == {"json_schema"}
    assert not any("tool_choice" in body for body in asked)


def test_a_tool_that_returns_nothing_in_a_list_is_answered(server: PlanServer) -> None:
    @tool
    def find(word: str) -> list[str]:
        """What there is."""
        return []

    def then(request: Request) -> Reply:
        has_called = any(message["role"] == "tool" for message in request.body["messages"])
        return Reply(completion("nothing") if has_called else calls("find", '{"word": "x"}'))

    with OtherServer().running() as other:
        other.answer = then
        state = create_agent(ChatParrot(base_url=other.url), [find]).invoke(HELLO)
        assert state["messages"][-1].text == "nothing"
        history = other.last.body["messages"]
    assert history[-1]["content"] == ""
    assert ours(server).invoke(state["messages"]).text, "our server takes such a history"


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_runs_in_a_tool_is_in_the_session_of_its_run(server: PlanServer, raises: bool, is_async: bool) -> None:
    llm = ours(server)
    inner = create_agent(llm, [look_up])

    @tool("look_up")
    def ask(word: str) -> str:
        """What a word means."""
        said = llm.invoke(f"what is {word}?").text + inner.invoke(HELLO)["messages"][-1].text
        if raises:
            raise RuntimeError("the tool broke")
        return f"found {said}"

    outer = create_agent(llm, [ask])

    def run() -> Any:
        return asyncio.run(outer.ainvoke(HELLO)) if is_async else outer.invoke(HELLO)

    if raises:
        with pytest.raises(RuntimeError, match="the tool broke"):
            run()
    else:
        run()
    told = sessions(server)
    assert len(told) == (4 if raises else 5) and len(set(told)) == 1 and told[0] is not None
    assert not len(planner._runs)


async def test_a_tool_that_is_cancelled_leaves_nothing_behind(server: PlanServer) -> None:
    begun = asyncio.Event()

    @tool("look_up")
    async def wait(word: str) -> str:
        """What a word means."""
        begun.set()
        await asyncio.Event().wait()
        return "found"

    running = asyncio.create_task(create_agent(ours(server), [wait]).ainvoke(HELLO))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not len(planner._runs)


async def test_a_model_that_is_cancelled_leaves_nothing_behind(server: PlanServer) -> None:
    agent = create_agent(ours(server), [look_up])
    server.stall()
    running = asyncio.create_task(agent.ainvoke(HELLO))
    await until(lambda: len(planner._in_graphs) > 0, "a model that runs in a graph")
    assert not planner.ignore_llm
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    server.resume()
    assert planner.ignore_llm and not len(planner._runs)


async def test_a_model_in_a_tool_that_is_cancelled_leaves_nothing_behind(server: PlanServer) -> None:
    llm = ours(server)

    @tool("look_up")
    async def ask(word: str) -> str:
        """What a word means."""
        server.stall()
        return (await llm.ainvoke(word)).text

    running = asyncio.create_task(create_agent(llm, [ask]).ainvoke(HELLO))
    await until(lambda: len(server.asked()) == 2, "a request of the model in the tool")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    server.resume()
    assert planner.ignore_llm and not len(planner._runs)


async def test_a_tool_that_is_in_no_run_leaves_nothing_behind_when_it_is_cancelled(server: PlanServer) -> None:
    llm, begun = ours(server), asyncio.Event()

    @tool("look_up")
    async def wait(word: str) -> str:
        """What a word means."""
        await llm.ainvoke(word)
        await llm.ainvoke(word)
        begun.set()
        await asyncio.Event().wait()
        return "found"

    running = asyncio.create_task(wait.ainvoke({"word": "a"}))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not len(planner._runs)
